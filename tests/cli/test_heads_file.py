"""The file of several heads: what it may say, what wins, and how the rest is refused."""

import json

import pytest

from tests.records import records, write_csv

GOOD = """
epochs = 2
learning-rate = 1e-3

[[head]]
name = "own"
label-column = "label"
learning-rate = 2e-3
seed = 7

[[head]]
name = "plain.1"
label-column = "label"
"""


@pytest.fixture(scope="module")
def place(recycle, tmp_path_factory, tiny_bert):
    """A folder with train.csv and a store of it."""
    folder = tmp_path_factory.mktemp("place")
    write_csv(folder / "train.csv", records(30))
    recycle.json("precompute", "train.csv", "store", "--model", tiny_bert, "--cut", 2, "--max-length", 16, cwd=folder)
    return folder


def settings(run):
    return json.loads((run / "recycle.json").read_text())["settings"]


def test_a_head_comes_before_the_top_and_the_top_before_the_command_line(recycle, place, tmp_path):
    (tmp_path / "heads.toml").write_text(GOOD)
    options = ("--heads", tmp_path / "heads.toml", "--output", tmp_path / "runs", "--batch-size", 8, "--epochs", 9)
    report = recycle.json("finetune", "train.csv", "store", *options, "--weight-decay", 0.5, "--seed", 3, cwd=place)
    assert [head["name"] for head in report["heads"]] == ["own", "plain.1"]
    assert [len(head["epoch_seconds"]) for head in report["heads"]] == [2, 2]
    own, plain = (settings(tmp_path / "runs" / name) for name in ("own", "plain.1"))
    asked = ("epochs", "learning_rate", "weight_decay", "batch_size", "seed", "order_seed")
    assert [own[name] for name in asked] == [2, 2e-3, 0.5, 8, 7, 3]
    assert [plain[name] for name in asked] == [2, 1e-3, 0.5, 8, 3, 3]
    done = recycle("finetune", "train.csv", "store", *options, "--resume", cwd=place)
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_people_see_a_table_with_a_line_a_head(recycle, place, tmp_path):
    (tmp_path / "heads.toml").write_text(GOOD)
    options = ("--heads", tmp_path / "heads.toml", "--output", tmp_path / "runs", "--batch-size", 8)
    shown = recycle("finetune", "train.csv", "store", *options, cwd=place)
    assert shown.code == 0
    assert shown.out == ""
    assert len([line for line in shown.err.splitlines() if line.startswith("│ own ")]) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no [[head]] in it"),
        ("head = 3", "no [[head]] in it"),
        ("[[head]", "is no TOML: "),
        ("[[head]]", "head 1: name = None; expected letters"),
        ('[[head]]\nname = "../up"', "head 1: name = '../up'; expected letters"),
        ('[[head]]\nname = "a"\n[[head]]\nname = "A"', "two heads have the name 'A'"),
        ('[[head]]\nname = "a"\nlearning_rate = 1', "head 1 (a): 'learning_rate' is no option of a head; did you mean"),
        ('[[head]]\nname = "a"\nbatch-size = 4', "batch-size is the same for all heads"),
        ('[[head]]\nname = "a"\norder-seed = 4', "order-seed is the same for all heads"),
        ('output = "b"\n[[head]]\nname = "a"', "'output' is no option of a head"),
        ('[[head]]\nname = "a"\nepochs = 0', "epochs = 0: 0 is not a whole number of at least 1"),
        ('[[head]]\nname = "a"\nlearning-rate = nan', "head 1 (a): learning-rate = nan: expected a finite number"),
        ('weight-decay = "-inf"\n[[head]]\nname = "a"', "weight-decay = '-inf'"),
        ('mixup = inf\n[[head]]\nname = "a"', "mixup = inf: expected a finite number"),
        ('[[head]]\nname = "a"\nepochs = true', "epochs = True; expected a whole number"),
        ('[[head]]\nname = "a"\nmetric = "f9"', "metric = 'f9': 'f9' is not one of"),
        ('[[head]]\nname = "a"\nseed = [1, 2]', "seed = [1, 2]; expected a single value"),
        (
            '[[head]]\nname = "a"\nlabel-column = "sense"\n[[head]]\nname = "b"\nlabel-column = "label"',
            "no column 'sense'",
        ),
    ],
)
def test_what_cannot_be_is_one_clear_line(recycle, place, tmp_path, text, said):
    (tmp_path / "heads.toml").write_text(text)
    options = ("--heads", tmp_path / "heads.toml", "--output", tmp_path / "runs")
    done = recycle("finetune", "train.csv", "store", *options, cwd=place)
    assert done.code in (2, 3)
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_not_there(recycle, place, tmp_path):
    done = recycle("finetune", "train.csv", "store", "--heads", "none.toml", "--output", tmp_path / "runs", cwd=place)
    assert done.code == 2
    assert "--heads none.toml: No such file" in done.err
