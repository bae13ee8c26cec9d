"""Options from a file: what comes first, what is refused, and a training that is repeated from its own file."""

import json
import os
import shutil
import tomllib
from dataclasses import fields, is_dataclass, replace
from typing import get_origin

import pytest

from recycle_cli.cli.main import app
from recycle_cli.errors import UsageError
from recycle_cli.settings import TASKS, CorpusSettings, Job, ModelSettings, TrainingSettings, config_of
from recycle_cli.settings.option import option_of
from tests.records import records, write_csv

TEXTS = {
    "size": "3GiB",
    "names": 'a "b",c',
    "logs": "csv,mlflow",
    "poolings": "mean,last",
    "sides": "32,24",
    "numbers": "0.25,0.5,0.125",
}
"""What the parsers of options read."""


def other(one, about):
    """A value of a settings field that is not its default."""
    if about.parser is not None:
        return about.parser(TEXTS[about.parser.__name__])
    if get_origin(one.type) is tuple:
        return ("a >= 1", 'b "x"')
    if about.choices or getattr(one.type, "__args__", None):
        values = about.choices or [value for value in one.type.__args__ if value is not type(None)]
        values = values[0].__args__ if getattr(values[0], "__args__", None) else values
        if all(isinstance(value, str) for value in values):
            return next(value for value in values if value != one.default)
    if one.default is True or one.default is False:
        return not one.default
    kind = str(one.type)
    if "float" in kind:
        return 0.375
    if "int" in kind:
        return 41
    return 'a "quoted" \\ name\n\x7fé'


def changed(settings):
    """The settings with every option changed."""
    new = {}
    for one in fields(settings):
        value, about = getattr(settings, one.name), option_of(one)
        if is_dataclass(value):
            new[one.name] = changed(value)
        elif about is not None and about.repeated and one.name not in ("task", "name"):
            new[one.name] = other(one, about)
    return replace(settings, **new)


@pytest.mark.parametrize("task", list(TASKS))
@pytest.mark.parametrize("change", [changed, lambda settings: settings])
def test_the_file_of_a_training_says_all_that_was_asked_for(asked, tmp_path, task, change):
    data = change(CorpusSettings(("a.csv", 'b "c".csv')))
    job = change(replace(Job(data, "out", "store", CorpusSettings(("e.csv",))), task=task, model_named=True))
    job = replace(job, data=data, evaluation=replace(data, source=("e.csv",), limit=None), model_named=True)
    training = change(replace(TrainingSettings(), task=TASKS[task]()))
    model = change(ModelSettings("some-model"))
    path = tmp_path / "config.toml"
    path.write_text(config_of(job, model, training), encoding="utf-8")
    assert asked("--config", path) == (job, model, training)


def test_the_command_line_comes_first_then_the_environment_then_the_file(asked, tmp_path, monkeypatch):
    path = tmp_path / "my.toml"
    path.write_text('data = "a.csv"\noutput = "out"\nepochs = 7\nseed = 7\nbatch-size = 7\ntensorboard = false\n')
    monkeypatch.setenv("RECYCLE_EPOCHS", "8")
    monkeypatch.setenv("RECYCLE_SEED", "8")
    monkeypatch.setenv("RECYCLE_CONFIG", str(path))
    job, _, training = asked("--epochs", 9)
    assert (training.epochs, training.seed, training.batch_size) == (9, 8, 7)
    assert (job.data.source, job.store, job.tensorboard) == (("a.csv",), None, False)
    job, _, _ = asked("b.csv", "s", "--tensorboard")
    assert (job.data.source, job.store, job.tensorboard) == (("b.csv",), "s", True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("batch_size = 4", "'batch_size' is no option of `recycle finetune`; did you mean batch-size"),
        ("epochs = 0", "epochs = 0: 0 is not a whole number of at least 1"),
        ('epochs = "many"', "epochs = 'many': 'many' is not a whole number of at least 1"),
        ("epochs = 2.5", "epochs = 2.5: '2.5' is not a whole number"),
        ("epochs = true", "epochs = True; expected a whole number"),
        ("epochs = [1, 2]", "epochs = [1, 2]; expected a single value"),
        ("learning-rate = nan", "learning-rate = nan: expected a finite number"),
        ("text-column = 2026-01-01", "expected a text or a number"),
        ("output = true", "output = True; expected a text or a number"),
        ("[train]\nepochs = 3", "'train' is no option of"),
        ("[output]\nx = 3", "expected a text or a number"),
        ('dtype = "float16"', "'dtype' is no option of"),
        ('metric = "f9"', "metric = 'f9': 'f9' is not one of"),
        ('memory = "much"', "memory = 'much': 'much': expected a size of at least one byte"),
        ('config = "other.toml"', "'config' is no option of"),
        ("resume = 3", "resume = 3: '3' is not true or false"),
        ("epochs = ", "is no TOML"),
    ],
)
def test_what_the_file_cannot_say_is_refused_by_its_name(tmp_path, content, said):
    path = tmp_path / "my.toml"
    path.write_text(content)
    with pytest.raises(UsageError) as error:
        app(["finetune", "a.csv", "--output", "r", "--config", str(path)], standalone_mode=False, prog_name="recycle")
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_every_command_takes_a_file(recycle, tmp_path):
    (tmp_path / "my.toml").write_text('store = "none"\nsegments = true\n')
    done = recycle("store", "info", "--config", "my.toml", cwd=tmp_path)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "none: no such file or folder; name a store" in done.err
    done = recycle("store", "info", "--config", "none.toml", cwd=tmp_path)
    assert (done.code, done.err) == (2, "recycle: --config none.toml: No such file or directory; give a TOML file\n")


@pytest.fixture(scope="module")
def place(recycle, tmp_path_factory, tiny_bert):
    """A folder with data, a store of it and two RUNs of heads."""
    folder = tmp_path_factory.mktemp("place")
    write_csv(folder / "one.csv", records(24))
    write_csv(folder / "two.csv", records(12, seed=1))
    recycle.json(
        "precompute", "one.csv", "two.csv", "acts", "--model", tiny_bert, "--cut", 2, "--max-length", 16, cwd=folder
    )
    return folder


def test_a_run_is_repeated_from_its_own_file(recycle, place, tmp_path):
    options = ("--eval", "two.csv", "--epochs", 2, "--batch-size", 8, "--learning-rate", 1e-3, "--no-tensorboard")
    data = tmp_path / os.fsdecode(b"on\xff.csv")
    shutil.copy(place / "one.csv", data)
    recycle.json("finetune", data, "two.csv", "acts", "--output", tmp_path / "run", *options, cwd=place)
    config = tmp_path / "run" / "config.toml"
    recycle.json("finetune", "--config", config, "--output", tmp_path / "again", cwd=place)
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    done = recycle("finetune", "--config", config, cwd=place)
    assert (done.code, "holds a finished run" in done.err) == (2, True)


def test_each_of_several_heads_is_repeated_alone(recycle, place, tmp_path):
    (tmp_path / "heads.toml").write_text(
        'epochs = 2\n[[head]]\nname = "a"\nlabel-column = "label"\nseed = 3\n'
        '[[head]]\nname = "b"\nlearning-rate = 1e-3\nlabel-column = "label"\n'
    )
    options = ("--heads", tmp_path / "heads.toml", "--batch-size", 8, "--no-tensorboard")
    recycle.json("finetune", "one.csv", "acts", "--output", tmp_path / "runs", *options, cwd=place)
    for name in "ab":
        config = tmp_path / "runs" / name / "config.toml"
        assert tomllib.loads(config.read_text())["label-column"] == "label"
        recycle.json("finetune", "--config", config, "--output", tmp_path / name, cwd=place)
        mine, alone = (folder / "model.safetensors" for folder in (tmp_path / "runs" / name, tmp_path / name))
        assert mine.read_bytes() == alone.read_bytes()


def test_json_in_a_file_makes_an_object_of_a_failure_too(recycle, tmp_path):
    (tmp_path / "c.toml").write_text("json = true\n")
    done = recycle("store", "info", "nowhere.zarr", "--config", "c.toml", cwd=tmp_path)
    assert done.code == 4
    assert json.loads(done.out)["error"]["kind"] == "StoreError"
