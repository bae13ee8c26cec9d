"""The tasks through the real command: what a user types, and what is said where it cannot work."""

import json

import pyarrow.parquet as pq
import pytest

from tests.records import records, write_csv
from tests.tasks.corpora import several

HEADS = """
epochs = 1
group-samples = 3

[[head]]
name = "skip"
margin = 0.3

[[head]]
name = "small"
loss = "supervised-contrastive"
temperature = 0.2
embedding = "linear"
embedding-size = 8
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, recycle, tiny_bert):
    """A folder with one label a text (groups.csv), several labels a text (tags.csv), and a store of both."""
    place = tmp_path_factory.mktemp("tasks")
    write_csv(place / "groups.csv", records(40))
    write_csv(place / "tags.csv", [{**row, "labels": "|".join(row["labels"]) or "|"} for row in several(40)])
    (place / "heads.toml").write_text(HEADS)
    for name in ("groups.csv", "tags.csv"):
        recycle.json("precompute", name, "store", "--model", tiny_bert, "--cut", 2, "--max-length", 16, cwd=place)
    return place


def finetune(data, *more, output="new"):
    return ("finetune", data, "store", "--output", output, "--epochs", 1, "--no-tensorboard", *more)


def test_similarity(recycle, place):
    options = ("--task", "similarity", "--loss", "supervised-contrastive", "--temperature", 0.2)
    linear = ("--group-samples", 2, "--embedding", "linear", "--embedding-size", 8)
    done = recycle.json(*finetune("groups.csv", "--eval", "groups.csv", *options, *linear, output="groups"), cwd=place)
    assert list(done["metrics"]) == ["rrp"]
    found = recycle.json("predict", "groups.csv", "groups", "--store", "store", cwd=place)
    assert (found["hits"], found["output"]) == (40, "groups/predictions.parquet")
    assert found["metrics"] == pytest.approx(done["metrics"], abs=1e-6)
    assert {len(one) for one in pq.read_table(place / "groups" / "predictions.parquet")["embedding"].to_pylist()} == {8}


def test_similarity_of_several_heads(recycle, place):
    done = recycle.json(*finetune("groups.csv", "--task", "similarity", "--heads", "heads.toml"), cwd=place)
    assert [head["name"] for head in done["heads"]] == ["skip", "small"]
    kept = [json.loads((place / "new" / name / "recycle.json").read_text())["settings"] for name in ("skip", "small")]
    assert [one["similarity"]["margin"] for one in kept] == [0.3, 0.5]
    assert [one["similarity"]["group_samples"] for one in kept] == [3, 3]


def test_several_labels(recycle, place):
    done = recycle.json(*finetune("tags.csv", "--eval", "tags.csv", "--multi-label", output="tags"), cwd=place)
    assert done["classes"] == ["art", "bio", "code"]
    found = recycle.json("predict", "tags.csv", "tags", "--threshold", 0.4, cwd=place)
    assert (found["misses"], found["output"]) == (40, "tags/predictions.csv")
    assert found["metrics"]["mean_average_precision"] == pytest.approx(done["metrics"]["mean_average_precision"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--margin", 0.2), "--margin: only --task similarity takes it; leave it out of --task text-classification"),
        (("--task", "similarity", "--temperature", 1), "--temperature 1.0: --loss triplet has none; leave it out"),
        (("--task", "similarity", "--multi-label"), "leave it out of --task similarity"),
        (("--task", "similarity", "--metric", "accuracy"), "take one of rrp"),
        (("--metric", "rrp"), "take one of macro_f1, accuracy, loss"),
        (("--task", "similarity", "--embedding-size", 4), "a skip connection keeps the width, which is 32 here"),
        (("--task", "similarity", "--batch-size", 6), "give at least 10, or fewer --group-samples"),
    ],
)
def test_what_has_no_effect_is_refused_in_one_line(recycle, place, arguments, message):
    done = recycle(*finetune("groups.csv", *arguments, output="refused"), cwd=place)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert message in line
    assert not (place / "refused").exists()
