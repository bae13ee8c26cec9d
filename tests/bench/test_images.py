"""`bench` and `plan` on images: the figures they name, images of their own making, and what views cost."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from recycle_cli.bench.figures import figures_of
from recycle_cli.bench.layout import Comparison, Layout, layout
from recycle_cli.bench.synthetic import write_images
from recycle_cli.bench.timing import Run
from recycle_cli.settings.measuring import VERBS

SHAPES = Path(__file__).parents[2] / "sample_data" / "shapes"
MODEL = ("--model", "shufflenet_v2_x0_5", "--weights", "none", "--resize", 32)
SMALL = ("--batch-size", 4, "--batches", 1, "--repetitions", 1)


@pytest.fixture(scope="module")
def everything(recycle):
    """A small bench of all verbs on images of its own making."""
    return recycle.json("bench", *MODEL, *SMALL, "--limit", 16, "--require", "precompute.time_vs_slower>0")


def test_a_bench_of_images_measures_every_figure_it_names(everything):
    names = {name for verb in VERBS for name in layout(verb, ["50%"], images=True).names()}
    assert set(everything["figures"]) == names
    assert {"precompute.decode.seconds", "precompute.time_vs_decode", "precompute.time_vs_slower"} <= names
    for name, figure in everything["figures"].items():
        if name.startswith("finetune.lora."):
            assert figure["note"] == "only text models take adapters"
        else:
            assert figure["median"] is not None, (name, figure["note"])
    settings = everything["settings"]
    assert (settings["corpus"], settings["records"], settings["tokens"]) == ("synthetic", 16, None)
    assert (settings["image_size"], settings["weights"]) == ([32, 32], "random, seed 0")


def test_a_bench_of_ones_own_images_is_a_table_for_people(recycle):
    done = recycle("bench", "precompute", "--corpus", SHAPES / "val", *MODEL, *SMALL, "--limit", 16)
    assert done.code == 0, done.err
    assert "16 records, 32 x 32 pixels, shufflenet_v2_x0_5" in done.err
    assert "time_vs_slower" in done.err.replace(" ", "_")


def test_the_slower_of_two_is_the_limit():
    one = Layout("precompute", ("p.a", "p.b", "p.c"), (Comparison("time", "p.a", "p.b", beside="p.c"),))
    runs = {"p.a": [Run(3.0, 1), Run(3.0, 1)], "p.b": [Run(2.0, 1), Run(1.0, 1)], "p.c": [Run(1.0, 1), Run(6.0, 1)]}
    found = figures_of(one, runs, 1)["p.time_vs_slower"]
    assert (found.low, found.high) == (0.5, 1.5)


def test_made_up_images_are_the_same_each_time_and_as_large_as_photographs(tmp_path):
    one, other = (write_images(tmp_path / name, 5, seed=1) for name in "ab")
    files = sorted(path.name for path in one.iterdir())
    assert len(files) == 5
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in files)
    assert len({(one / name).read_bytes() for name in files}) == 5
    with Image.open(one / files[1]) as image:
        assert (image.format, image.size) == ("JPEG", (500, 375))
    assert 50_000 < (one / files[1]).stat().st_size < 150_000


@pytest.fixture(scope="module")
def plan(recycle, tmp_path_factory):
    """A plan of 60 images with two views, one of them a copy of another and one of them broken."""
    place = tmp_path_factory.mktemp("plan")
    shutil.copytree(SHAPES / "val", place / "photos")
    shutil.copy(place / "photos" / "circle" / "00.png", place / "photos" / "square" / "copy.png")
    (place / "photos" / "circle" / "text.png").write_text("no image")
    cuts = ("--cut", "50%", "--cut", "stage3")
    options = (*MODEL, *cuts, *SMALL, "--sample", 61, "--views", 2, "--on-error", "skip")
    return recycle.json("plan", "photos", *options, cwd=place), place


def test_a_plan_of_images_counts_them_and_says_what_views_cost(plan):
    found, _ = plan
    assert (found["records"], found["unique_samples"], found["tokens"], found["max_length"]) == (62, 61, None, None)
    assert (found["views"], found["sample"]) == (2, {"counted": 60, "tried": 60})
    for cut in found["cuts"]:
        plain = cut["without_views"]
        assert {dtype: 3 * size for dtype, size in plain["bytes"].items()} == cut["bytes"]
        assert cut["fill_seconds"] == pytest.approx(3 * plain["fill_seconds"])
        pays = (cut["payback_epoch_vs_frozen"], plain["payback_epoch_vs_frozen"])
        assert pays == (None, None) or pays[0] >= pays[1]


def test_the_bytes_of_each_cut_are_those_that_are_written(plan, recycle):
    found, place = plan
    assert found["cuts"][1]["blocks"] == "stage3"
    options = (*MODEL, "--cut", "stage3", "--views", 2, "--on-error", "skip")
    made = recycle.json("precompute", "photos", "store", *options, cwd=place)
    assert made["rows"] == 3 * 60
    # The plan takes the one broken image for a sound one.
    assert found["cuts"][1]["bytes"]["float16"] == pytest.approx(made["bytes"] * 61 / 60, rel=0.1)


def test_a_plan_of_images_is_a_table_for_people(recycle, plan):
    options = (*MODEL, "--cut", "stage3", *SMALL, "--sample", 16, "--views", 1, "--on-error", "skip")
    done = recycle("plan", "photos", *options, cwd=plan[1])
    assert done.code == 0, done.err
    assert "61 different, --views 1" in done.err
    assert "What --views 1 costs" in done.err


def test_a_plan_for_texts_has_no_views(recycle, tiny_bert, tmp_path):
    (tmp_path / "t.csv").write_text("text\ncell\ndata\n")
    done = recycle("plan", "t.csv", "--model", tiny_bert, "--views", 2, cwd=tmp_path)
    assert done.code == 2
    assert "only images have views" in done.err
