"""Each way to go wrong ends in one line that names value and remedy, the right exit code and an intact store."""

import csv
import json
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch
import transformers

from tests.conftest import save_tiny, tiny_config
from tests.contents import contents
from tests.records import records, write_csv

LENGTH = ("--max-length", 16)


@pytest.fixture(scope="module")
def place(tmp_path_factory, recycle, tiny_bert):
    """A folder with train.csv, a store of it at cut 2 and a finished run."""
    place = tmp_path_factory.mktemp("place")
    write_csv(place / "train.csv", records(40))
    write_csv(place / "new.csv", records(20, seed=3))
    recycle.json("precompute", "train.csv", "store", "--model", tiny_bert, "--cut", 2, *LENGTH, cwd=place)
    recycle.json("finetune", "train.csv", "store", "--output", "run", "--epochs", 1, "--no-tensorboard", cwd=place)
    return place


@pytest.fixture
def fails(recycle, place):
    """Run a command that must fail with this code: one line on stderr, one object on stdout, the store as it was.

    Returns the message.
    """

    def fails(code, *arguments, **options):
        before = contents(place / "store")
        done = recycle(*arguments, "--json", **{"cwd": place, **options})
        assert done.code == code, done.err
        lines = [line for line in done.err.splitlines() if not line.startswith(("skipped", "epoch"))]
        assert len(lines) == 1, done.err
        error = done.json["error"]
        assert lines[0] == f"recycle: {error['message']}"
        assert error["exit_code"] == code
        assert contents(place / "store") == before
        return error["message"]

    return fails


def precompute(corpus, *more, store="other", model="tiny"):
    return ("precompute", corpus, store, "--model", model, *(more or ("--cut", 2, *LENGTH)))


def finetune(data, *more, store="store", output="new-run"):
    return ("finetune", data, store, "--output", output, "--no-tensorboard", *more)


# Data


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("none.csv", None, (), ["none.csv", "no such file"]),
        ("empty.csv", b"", (), ["empty.csv", "is empty"]),
        ("header.csv", b"text,label\n", (), ["header.csv", "names of its columns alone"]),
        ("columns.csv", b"a,b\nx,y\n", (), ["--text-column", "the columns are: a, b"]),
        ("named.csv", b"text,label\nx,y\n", ("--text-column", "body"), ["'body'", "the columns are: text, label"]),
        ("blank.csv", b"text,label\ncell,a\n,b\n", (), ["record 2", "--on-error skip"]),
        ("missing.jsonl", b'{"text": "cell"}\n{"label": "a"}\n', (), ["record 2", "--on-error skip"]),
        ("latin.csv", b"text,label\ncaf\xe9,a\n", (), ["record 1", "UTF-8"]),
    ],
)
def test_records_that_cannot_be_used(fails, place, tiny_bert, name, content, options, words):
    if content is not None:
        (place / name).write_bytes(content)
    message = fails(3, *precompute(name, "--cut", 2, *LENGTH, *options, model=tiny_bert, store="bad"))
    assert all(word in message for word in words), message
    assert not (place / "bad").exists() or not contents(place / "bad")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, ["none.csv", "no such file"]),
        ("one.csv", b"text,label\ncell,a\ndata,a\n", ["only the label 'a'", "at least two"]),
        ("unlabelled.csv", b"text,other\ncell,1\n", ["--label-column", "the columns are: text, other"]),
        ("hole.csv", b"text,label\ncell,a\ndata,\n", ["record 2", "no label", "--on-error skip"]),
    ],
)
def test_labels_that_cannot_be_used(fails, place, name, content, words):
    if content is not None:
        (place / name).write_bytes(content)
    message = fails(3, *finetune(name))
    assert all(word in message for word in words), message


def test_a_label_unseen_in_training(fails, place):
    write_csv(place / "unseen.csv", [{"text": "cell", "label": "bio"}, {"text": "data", "label": "sport"}])
    message = fails(3, *finetune("train.csv", "--eval", "unseen.csv"))
    assert ", record 2: the label 'sport' was not seen in training" in message


def test_bad_records_may_be_skipped_and_are_listed(recycle, place, tiny_bert, tmp_path):
    rows = [{"text": "cell"}, {"text": ""}, {"text": "data"}]
    corpus = write_csv(tmp_path / "holes.csv", rows)
    command = precompute(corpus, "--cut", 2, *LENGTH, "--on-error", "skip", store=tmp_path / "s", model=tiny_bert)
    found = recycle.json(*command, "--failures", tmp_path / "lists" / "failed.jsonl")
    assert (found["samples"], found["new_samples"], found["failed_samples"]) == (3, 2, 1)
    (line,) = (tmp_path / "lists" / "failed.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "1"


# Models, cuts, stores


@pytest.mark.parametrize(
    ("code", "model", "options", "words"),
    [
        (3, "no-such-org/no-such-model", ("--cut", 2), ["no-such-org/no-such-model", "give a folder"]),
        (3, "./no-such-folder", ("--cut", 2), ["./no-such-folder", "no such folder"]),
        (2, None, ("--cut", 9), ["'9'", "from 0 to 4"]),
        (2, None, ("--cut", "150%"), ["'150%'", "0% to 100%"]),
        (2, None, ("--cut", "layer3"), ["'layer3'", "number of blocks from 0 to 4"]),
        (4, None, ("--cut", 0, *LENGTH), ["store: made with another recipe", "cuts: 2 in the store, 0 asked for"]),
        (2, None, ("--cut", 2, "--max-length", 4000), ["4000", "--max-length 64"]),
        (2, None, ("--cut", 2, "--limit", 0), ["--limit", "1"]),
        (2, None, ("--cut", 2, "--dtype", "float8"), ["--dtype", "float16"]),
        (2, None, ("--cut", 2, *LENGTH, "--device", "tpu"), ["--device tpu", "cpu"]),
        (2, None, ("--cut", 2, "--layer", 3), ["--layer"]),
        (2, None, ("--cut", 2, "--weights", "none", "--crop", 8), ["--weights, --crop", "takes texts"]),
        (2, None, ("--cut", 2, "--views", 2), ["--views 2", "only images"]),
        (2, None, ("--cut", 2, "--augment", "flip"), ["--augment flip", "--views"]),
        (3, None, ("--cut", 2, "--image-column", "text"), ["--image-column has no meaning"]),
        (4, None, ("--cut", 3, *LENGTH), ["store: made with another recipe", "cuts: 2 in the store, 3 asked for"]),
        (4, None, ("--cut", 2, "--max-length", 12), ["max_length: 16 in the store, 12 asked for"]),
        (4, None, ("--cut", 2, *LENGTH, "--dtype", "float32"), ["dtype: float16 in the store, float32 asked for"]),
    ],
)
def test_models_and_cuts_and_stores_that_do_not_fit(fails, tiny_bert, code, model, options, words):
    message = fails(code, *precompute("train.csv", *options, store="store", model=model or tiny_bert))
    assert all(word in message for word in words), message


def test_options_of_the_other_kind_of_model_are_refused(fails, tiny_bert):
    assert "--head-batchnorm: store takes texts" in fails(2, *finetune("train.csv", "--head-batchnorm", "eval"))
    assert "--image-size 64" in fails(2, "layers", tiny_bert, "--image-size", 64)
    assert "--max-length 64: resnet18 takes images" in fails(2, "layers", "resnet18", "--max-length", 64)


def test_a_column_that_had_to_be_guessed_is_told(recycle, place, tiny_bert, tmp_path):
    write_csv(tmp_path / "t.csv", [{"words": "cell", "intent": "a"}, {"words": "data", "intent": "b"}])
    done = recycle(*precompute(tmp_path / "t.csv", store=tmp_path / "s", model=tiny_bert), cwd=place)
    assert "taking the column 'words' as the text (--text-column), 'intent' as the label (--label-column)" in done.err
    done = recycle(*precompute(place / "train.csv", store=tmp_path / "s", model=tiny_bert), cwd=place)
    assert "taking" not in done.err


def test_another_model_is_refused_by_the_field(fails, tmp_path):
    other = save_tiny(tmp_path / "other", tiny_config(), seed=9, bare=True)
    assert "their weights differ" in fails(4, *precompute("train.csv", store="store", model=other))
    assert "their weights differ" in fails(4, *finetune("train.csv", "--model", other))


def test_folders_that_are_no_stores_or_runs(fails, place, tiny_bert):
    (place / "thesis").mkdir(exist_ok=True)
    (place / "thesis" / "chapter.txt").write_text("years of work")
    assert "thesis: not a store" in fails(4, *precompute("train.csv", store="thesis", model=tiny_bert))
    assert "thesis: not a store" in fails(4, *finetune("train.csv", store="thesis"))
    assert "thesis: not a store" in fails(4, "predict", "train.csv", "run", "--store", "thesis")
    assert "thesis is not a finished run" in fails(4, "predict", "train.csv", "thesis")
    assert "no-run: no such run" in fails(4, "predict", "train.csv", "no-run")
    assert (place / "thesis" / "chapter.txt").read_text() == "years of work"


def test_float16_overflow_names_the_remedy(fails, place, tmp_path):
    folder = save_tiny(tmp_path / "huge", tiny_config(), bare=True)
    network = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        network.encoder.layer[1].output.LayerNorm.weight.fill_(1e6)
    network.save_pretrained(folder)
    message = fails(3, *precompute("train.csv", store=tmp_path / "s", model=folder))
    assert "float16" in message
    assert "--dtype bfloat16" in message
    assert not contents(tmp_path / "s")


# Runs


@pytest.mark.parametrize("seed", [0, pytest.param(range(1, 12), marks=pytest.mark.long)], ids=["once", "often"])
def test_a_killed_finetune_resumes_to_the_undisturbed_run(recycle, place, tmp_path, seed):
    """SIGKILL at random instants, the same command with --resume each time, until one comes to its end."""
    command = ("--eval", "new.csv", "--epochs", 6, "--batch-size", 4, "--save-steps", 4, "--learning-rate", 1e-3)
    quiet = {"store": "inputs-store", "output": tmp_path / "undisturbed"}
    recycle.json("precompute", "train.csv", "new.csv", "inputs-store", "--model", model_of(place), *LENGTH, cwd=place)
    started = time.perf_counter()
    recycle.json(*finetune("train.csv", *command, **quiet), cwd=place)
    seconds = time.perf_counter() - started
    for number in [seed] if isinstance(seed, int) else seed:
        draw, run = random.Random(number), tmp_path / f"run-{number}"
        resumed = (*finetune("train.csv", *command, **quiet | {"output": run}), "--resume")
        killed, sooner = 0, 1.0
        while not killed:  # a run that came to its end before its instant is tried again with an earlier one
            shutil.rmtree(run, ignore_errors=True)
            while not (run / "recycle.json").exists():
                instant = draw.uniform(0.3, 1) * sooner * seconds if killed < 3 else 10 * seconds
                killed += recycle.killed(*resumed, after=instant, cwd=place).code != 0
            sooner /= 2
        for name in ("model.safetensors", "metrics.jsonl"):
            assert (run / name).read_bytes() == (quiet["output"] / name).read_bytes(), (number, name)


def model_of(place):
    return json.loads((place / "run" / "recycle.json").read_text())["model"]


def test_a_second_finetune_into_the_same_run(fails):
    assert "run holds a finished run; add --overwrite" in fails(2, *finetune("train.csv", output="run"))


def test_a_huge_learning_rate(fails):
    message = fails(3, *finetune("train.csv", "--learning-rate", 1e30, "--overwrite", output="nan-run"))
    assert "lower --learning-rate (now 1e+30)" in message


def test_finetune_without_a_store_or_a_cut(fails):
    assert "--cut" in fails(2, "finetune", "train.csv", "--output", "x")


def test_the_command_for_missing_samples_works(fails, recycle, place, tmp_path):
    """Names with spaces and quotes, a column and a format that must be named."""
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    rows = [{"body": one["text"], "title": "x", "label": one["label"]} for one in records(30, seed=8)]
    data = write_csv(folder / "my data.table", rows)
    columns = ("--text-column", "body", "--format", "csv")
    message = fails(5, *finetune(data, *columns, output=tmp_path / "run"))
    assert "lacks 30 of 30 samples" in message
    command = shlex.split(message.split("`")[1])
    assert command[0] == "recycle"
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", place / "store", copy], check=True)
    command[command.index("store")] = str(copy)
    assert recycle.json(*command[1:], cwd=place)["new_samples"] == 30
    recycle.json(*finetune(data, *columns, store=copy, output=tmp_path / "run"), cwd=place)


# Disks


@contextmanager
def mounted(folder, *options):
    """A file system of its own at the folder; skips where mounting is not permitted."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def small_disk(folder, kibibytes):
    with mounted(folder, "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs") as disk:
        yield disk


@contextmanager
def read_only(folder):
    with mounted(folder, "-t", "tmpfs", "-o", "ro", "tmpfs") as disk:
        yield disk


def test_read_only_folders(fails, tiny_bert, tmp_path):
    with read_only(tmp_path / "disk") as disk:
        for command in (
            precompute("train.csv", store=disk / "s", model=tiny_bert),
            finetune("train.csv", output=disk / "run"),
            ("predict", "train.csv", "run", "--output", disk / "out.csv"),
        ):
            message = fails(4, *command)
            assert str(disk) in message
            assert "cannot be written" in message or "read-only" in message.lower()


def test_a_full_disk_during_precompute_leaves_a_store_that_goes_on(fails, recycle, place, tiny_bert, tmp_path):
    corpus = write_csv(tmp_path / "many.csv", records(500))
    with small_disk(tmp_path / "disk", 200) as disk:
        command = precompute(
            corpus,
            "--cut",
            2,
            *LENGTH,
            "--batch-tokens",
            200,
            "--segment-bytes",
            20000,
            store=disk / "s",
            model=tiny_bert,
        )
        message = fails(4, *command)
        assert "space" in message.lower()
        held = len(contents(disk / "s"))
        assert 0 < held < 500
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        assert recycle.json(*command)["reused_samples"] == held
        assert len(contents(disk / "s")) == 500


@pytest.mark.parametrize("kibibytes", [8, 60, 200, 330])
def test_a_full_disk_during_finetune_leaves_no_run_and_can_be_resumed(fails, recycle, place, tmp_path, kibibytes):
    """At the log, at a checkpoint, at the best weights, at the model: the run takes about 450 KiB in all."""
    with small_disk(tmp_path / "disk", kibibytes) as disk:
        command = finetune("train.csv", "--eval", "train.csv", "--epochs", 2, output=disk / "run")
        message = fails(4, *command)
        assert "space" in message.lower()
        assert not (disk / "run" / "recycle.json").exists()
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        recycle.json(*command, "--resume", cwd=place)
        assert (disk / "run" / "recycle.json").exists()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_full_disk_during_predict_leaves_no_file(fails, tmp_path, ending):
    data = write_csv(tmp_path / "many.csv", [{"text": one["text"], "id": "x" * 200} for one in records(300)])
    with small_disk(tmp_path / "disk", 4) as disk:
        message = fails(4, "predict", data, "run", "--output", disk / f"out.{ending}", "--batch-tokens", 64)
        assert "space" in message.lower()
        assert not list(disk.iterdir())


# The frame


def test_json_prints_one_object_and_nothing_else(recycle, place):
    done = recycle("predict", "train.csv", "run", "--store", "store", "--json", cwd=place)
    assert (done.code, done.err) == (0, "")
    assert set(done.json) >= {"samples", "hits", "misses", "seconds", "samples_per_second", "metrics", "output"}
    assert done.json["hits"] == 40


def test_what_is_missed_of_what_is_required_is_exit_6_with_the_report(recycle, place, tmp_path):
    done = recycle(
        "predict", "train.csv", "run", "--require", "macro_f1>=2", "--require", "loss<9", "--json", cwd=place
    )
    assert done.code == 6
    assert done.json["samples"] == 40
    error = done.json["error"]
    assert (error["kind"], error["exit_code"]) == ("BarError", 6)
    assert re.fullmatch(r"macro_f1 is 0\.\d+; >= 2 was required", error["message"])
    assert done.err == f"recycle: {error['message']}\n"
    command = finetune("train.csv", "--eval", "train.csv", "--epochs", 1, output=tmp_path / "run")
    done = recycle(*command, "--require", "macro_f1>=2", cwd=place)
    assert (done.code, done.out) == (6, "")
    assert "epoch 1 of 1: train loss " in done.err
    assert "Fine-tuned" in done.err
    assert done.err.splitlines()[-1].endswith(">= 2 was required")
    assert (tmp_path / "run" / "recycle.json").exists()
    done = recycle(*command, "--overwrite", "--require", "macro_f1>=0", "--quiet", "--json", cwd=place)
    assert (done.code, done.err) == (0, "")
    assert "error" not in done.json


def test_figures_that_will_not_be_measured_are_refused(fails, place):
    write_csv(place / "plain.csv", [{"text": "cell"}])
    message = fails(2, "predict", "plain.csv", "run", "--require", "accuracy>=0.8")
    assert "accuracy is not measured without a column of labels, which --label-column names" in message
    assert "rrp is not measured here" in fails(2, "predict", "train.csv", "run", "--require", "rrp>=0.8")
    message = fails(2, *finetune("train.csv", "--log", "csv,nonsense"))
    assert "'nonsense': expected some of csv, tensorboard" in message


def test_without_json_stdout_is_empty_and_a_table_is_on_stderr(recycle, place):
    done = recycle("predict", "train.csv", "run", cwd=place)
    assert re.search(r"^│ macro f1 +│", done.err, re.M)
    assert (done.code, done.out) == (0, "")
    assert "samples per second" in done.err
    assert done.err.count("\r") == 0, "a progress bar where there is no terminal"


def test_json_on_a_mistake_of_the_command_line(recycle):
    for arguments in (("precompute", "--json"), ("precompute", "a", "b", "--nope", "--json"), ("nope", "--json")):
        done = recycle(*arguments)
        assert done.code == 2
        assert done.json["error"]["exit_code"] == 2
        assert len(done.err.splitlines()) == 1


def test_options_come_from_the_environment(recycle, place, tmp_path):
    output = tmp_path / "out.csv"
    env = {"RECYCLE_LIMIT": "7", "RECYCLE_OUTPUT": str(output), "RECYCLE_JSON": "1", "RECYCLE_STORE": "store"}
    done = recycle("predict", "train.csv", "run", cwd=place, env=env)
    assert (done.json["samples"], done.json["hits"]) == (7, 7)
    with output.open() as file:
        assert len(list(csv.DictReader(file))) == 7
    failed = recycle("predict", "train.csv", "no-run", cwd=place, env=env)
    assert failed.json["error"]["exit_code"] == 4


def test_predictions_stand_beside_the_run_unless_named(recycle, place):
    found = recycle.json("predict", "new.csv", "run", cwd=place)
    assert found["output"] == "run/predictions.csv"
    assert len((place / "run" / "predictions.csv").read_text().splitlines()) == 21


def loaded_by(*arguments):
    code = f"""
import sys
sys.argv = ["recycle", *{arguments!r}]
from recycle_cli.__main__ import main
try:
    main()
finally:
    print(*sorted(name for name in sys.modules if "." not in name), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [("--help",), ("precompute", "--help"), ("finetune", "--help")])
def test_help_loads_nothing_heavy(arguments):
    heavy = {"torch", "torchvision", "transformers", "datasets", "zarr", "numpy", "pyarrow"}
    assert not heavy & loaded_by(*arguments)
