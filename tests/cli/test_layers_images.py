"""`recycle layers` of an image model: its cuts without its weights."""

import json

from typer.testing import CliRunner

from recycle_cli.cli.main import app


def test_layers_of_resnet_are_listed_with_shape_and_bytes():
    done = CliRunner().invoke(app, ["layers", "resnet18", "--image-size", "64", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["model"], found["max_length"], found["dtype"]) == ("resnet18", None, "float16")
    rows = {row["cut"]: row for row in found["layers"]}
    assert rows["layer2"]["row_shape"] == [128, 8, 8]
    assert rows["layer2"]["bytes_per_sample"] == 128 * 8 * 8 * 2
    assert 0.4 < rows["layer2"]["flops_share"] < 0.6


def test_layers_of_resnet_are_a_table_for_people():
    done = CliRunner().invoke(app, ["layers", "resnet18", "--image-size", "32"])
    assert done.exit_code == 0, done.output
    assert "resnet18: an image in float16" in done.output
