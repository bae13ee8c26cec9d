"""Two processes do what one does: the same losses step by step, and the same RUN."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recycle_cli.store import Store
from recycle_cli.training.parallel.batch_norm import WholeBatchNorm
from tests.conftest import save_tiny, tiny_config
from tests.models.vision.test_transformers import saved
from tests.ranks import next_start, run_ranks, trained_by, variables
from tests.records import records, write_csv
from tests.tasks.corpora import shapes
from tests.tasks.tagged import tagged, write_conll
from tests.tasks.test_pair_similarity import pairs
from tests.training.parallel.similarity import TASKS, tried
from tests.trainings import log_of, losses

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
USUAL = ("--epochs", 2, "--batch-size", 6, "--learning-rate", "1e-3", "--no-tensorboard")
TEXTS = ("train.csv", "--eval", "test.csv")
IMAGES = ("shapes/train", "--eval", "shapes/val", "--task", "image-classification")
TAGS = ("train.conll", "--eval", "test.conll", "--task", "token-classification")
BERT = ("--model", "bert", "--max-length", 16, "--cut")


@pytest.fixture(scope="module")
def place(recycle, tmp_path_factory):
    """A folder with data of several tasks, models and stores."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "bert").mkdir()
    save_tiny(folder / "bert", tiny_config(**STILL), bare=True)
    rows = records(31)
    write_csv(folder / "train.csv", rows)
    write_csv(folder / "test.csv", records(11, seed=1))
    some = [{**row, "label": row["label"] if number % 3 else ""} for number, row in enumerate(rows)]
    write_csv(folder / "some.csv", [{**row, "other": rows[number]["label"]} for number, row in enumerate(some)])
    for part, count, seed in (("train", 14, 0), ("test", 5, 1)):
        write_csv(folder / f"texts-{part}.csv", records(count + 9, seed=seed))
        write_csv(folder / f"pairs-{part}.csv", pairs(count, seed))
    write_conll(folder / "train.conll", tagged(14, 0, 8))
    write_conll(folder / "test.conll", tagged(6, 1, 8))
    shapes(folder / "shapes")
    for family in ("vit", "resnet"):
        (folder / family).mkdir()
        saved(folder / family, family)
    for data in ("train.csv", "test.csv"):
        recycle.json("precompute", data, "texts.zarr", *BERT, 2, "--dtype", "float32", cwd=folder)
    for data in ("shapes/train", "shapes/val"):
        cut = ("--model", "vit", "--cut", "50%", "--dtype", "float32")
        recycle.json("precompute", data, "images.zarr", *cut, cwd=folder)
    return folder


def both(recycle, place, name, *arguments):
    """The reports of a training by one process and by two."""
    return [
        trained_by(recycle, count, "finetune", *arguments, *USUAL, "--output", f"{name}-{count}", cwd=place)
        for count in (1, 2)
    ]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("texts", (*TEXTS, "--store", "texts.zarr")),
        ("accumulated", (*TEXTS, "--accumulation", 3, *BERT, 2)),
        ("whole", (*TEXTS, *BERT, 0)),
        ("vit", (*IMAGES, "--store", "images.zarr")),
        ("resnet", (*IMAGES, "--model", "resnet", "--cut", "50%")),
        ("tags", (*TAGS, *BERT, 2)),
        ("lora", (*TEXTS, "--store", "texts.zarr", "--adapter", "lora", "--adapter-dropout", 0)),
        ("windows", (*TEXTS, "--store", "texts.zarr", "--memory", "4KiB")),
    ],
)
def test_every_step_has_the_loss_of_one_process(recycle, place, name, arguments):
    one, two = both(recycle, place, name, *arguments)
    alone, together = (losses(place / f"{name}-{count}") for count in (1, 2))
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    assert len(set(alone)) > 1
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-5)
    assert two["samples_per_second"] > 0
    names = [{path.name for path in (place / f"{name}-{count}").rglob("*")} for count in (1, 2)]
    assert names[0] == names[1]
    about = [json.loads((place / f"{name}-{count}" / "recycle.json").read_text()) for count in (1, 2)]
    assert about[0]["settings"] == about[1]["settings"]


def test_what_compares_samples_compares_those_of_all_ranks(place):
    """Groups and pairs: a batch's samples are compared with one another, whichever rank has them."""
    port = next_start()
    command = [sys.executable, "-m", "tests.training.parallel.similarity", str(place)]
    started = [
        subprocess.Popen(command, env={**os.environ, **variables(rank, 2, port)}, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for one in started:
        one.communicate(timeout=300)
        assert not one.returncode
    for name in TASKS:
        alone = tried(place, name).fit(f"{name}-1", cut="2")
        steps = losses(alone.output)
        np.testing.assert_allclose(losses(place / f"{name}-2"), steps, rtol=0, atol=1e-5)
        assert len(set(steps)) > 1
        about = json.loads((place / f"{name}-2" / "recycle.json").read_text())
        assert about["report"]["metrics"] == pytest.approx(alone.metrics, abs=1e-5)


def test_the_predictions_are_those_of_one_process(recycle, place):
    found = []
    for count in (1, 2):
        arguments = (*TEXTS, "--store", "texts.zarr", *USUAL, "--output", f"answers-{count}")
        trained_by(recycle, count, "finetune", *arguments, cwd=place)
        recycle.json("predict", "test.csv", f"answers-{count}", "--output", f"{count}.jsonl", cwd=place)
        found.append([json.loads(line) for line in (place / f"{count}.jsonl").read_text().splitlines()])
    for one, two in zip(*found, strict=True):
        assert two["label"] == one["label"]
        assert two["score"] == pytest.approx(one["score"], abs=1e-4)


def test_only_the_heads_gradients_travel(recycle, place):
    """float32 gradients of what trains, once a step, whatever the batch; of the whole model those of all of it."""
    for name, arguments in (("sent", (*TEXTS, "--store", "texts.zarr")), ("all", (*TEXTS, *BERT, 0))):
        trained_by(recycle, 2, "finetune", *arguments, *USUAL, "--output", name, cwd=place)
        run = place / name
        tensors = load_file(run / "model.safetensors")
        head = [one for key, one in tensors.items() if name == "all" or not is_before_block_2(key)]
        assert {line["gradient_bytes"] for line in log_of(run) if "loss" in line} == {4 * sum(map(torch.numel, head))}


def is_before_block_2(name):
    return ".embeddings." in name or ".layer.0." in name or ".layer.1." in name


def test_several_heads_train_as_one_process_trains_them(recycle, place):
    heads = {"first": "label", "second": "other"}
    tables = [f'[[head]]\nname = "{name}"\nlabel-column = "{column}"\n' for name, column in heads.items()]
    (place / "heads.toml").write_text("".join(tables))
    data = ("some.csv", "--store", "texts.zarr", "--heads", "heads.toml")
    both(recycle, place, "several", *data)
    for head in heads:
        alone, together = (losses(place / f"several-{count}" / head) for count in (1, 2))
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("more", [(), ("--head", "ladder")], ids=["model", "ladder"])
def test_dropout_draws_the_same_each_time(recycle, place, tiny_bert, more):
    arguments = ("finetune", "train.csv", "--model", tiny_bert, "--max-length", 16, "--cut", 2, *more, *USUAL)
    for name in ("once", "again"):
        trained_by(recycle, 2, *arguments, "--output", name, "--overwrite", cwd=place)
    assert losses(place / "once") == losses(place / "again")


def test_a_head_that_is_solved_is_solved_on_all_rows(recycle, place):
    pooled = ("--model", "bert", "--max-length", 16, "--cut", "every", "--pool", "mean")
    for data in ("train.csv", "test.csv"):
        recycle.json("precompute", data, "pooled.zarr", *pooled, cwd=place)
    arguments = ("finetune", *TEXTS, "--store", "pooled.zarr", "--head", "pooled", "--no-tensorboard")
    one, two = (trained_by(recycle, n, *arguments, "--output", f"solved-{n}", cwd=place) for n in (1, 2))
    assert two["metrics"] == one["metrics"]
    assert losses(place / "solved-2") == losses(place / "solved-1")


def test_what_the_store_lacks_is_computed_once(recycle, place):
    recycle.json("precompute", "train.csv", "part.zarr", *BERT, 2, "--dtype", "float32", "--limit", 9, cwd=place)
    arguments = ("finetune", *TEXTS, "--store", "part.zarr", "--on-missing", "compute", *USUAL)
    report = trained_by(recycle, 2, *arguments, "--output", "computed", cwd=place)
    assert report["store_hit_share"] == pytest.approx(9 / 31)
    store = Store.open(str(place / "part.zarr"))
    assert sum(segment.summary.samples for segment in store.segments) == len(store) == 31 + 11


def test_the_report_tells_what_was_sent(recycle, place):
    arguments = ("finetune", *TEXTS, "--store", "texts.zarr", *USUAL)
    report = trained_by(recycle, 2, *arguments, "--output", "told", cwd=place)
    assert report["ranks"] == 2
    steps = [line for line in log_of(place / "told") if "loss" in line]
    for name in ("gradient_bytes", "output_bytes"):
        assert sum(one["sent"][name] for one in report["epochs"]) == sum(line[name] for line in steps)
    # Of each sample three float32 scores; the larger share of a batch is what both send.
    assert all(line["output_bytes"] <= 4 * 3 * line["samples"] for line in steps)


def test_more_ranks_than_samples_of_a_batch(recycle, place):
    data = ("train.csv", "--limit", 7, "--store", "texts.zarr", "--no-tensorboard", "--batch-size", 6, "--epochs", 2)
    for count in (1, 2):
        trained_by(recycle, count, "finetune", *data, "--output", f"few-{count}", cwd=place)
    np.testing.assert_allclose(losses(place / "few-2"), losses(place / "few-1"), rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_one_rank_on_a_gpu_trains_by_nccl(recycle, place):
    arguments = ("finetune", *TEXTS, "--store", "texts.zarr", *USUAL, "--device", "cuda")
    alone = recycle.json(*arguments, "--output", "gpu", cwd=place)
    (rank,) = run_ranks(recycle, 1, *arguments, "--output", "nccl", "--json", cwd=place)
    assert rank.json["metrics"] == pytest.approx(alone["metrics"], abs=1e-4)
    np.testing.assert_allclose(losses(place / "nccl"), losses(place / "gpu"), rtol=0, atol=1e-4)


def test_one_rank_is_a_group_too(recycle, place):
    arguments = ("finetune", *TEXTS, "--store", "texts.zarr", *USUAL)
    alone = recycle.json(*arguments, "--output", "alone", cwd=place)
    (rank,) = run_ranks(recycle, 1, *arguments, "--output", "single", "--json", cwd=place)
    assert rank.json["metrics"] == pytest.approx(alone["metrics"], abs=1e-5)
    assert log_of(place / "single")[0]["gradient_bytes"] > 0


def test_batch_norm_is_pytorchs_on_the_whole_batch(monkeypatch):
    """Of one rank, which has the whole batch."""
    torch.manual_seed(0)
    rows = torch.randn(6, 3, 4, 4) * 2 + 5
    own = torch.nn.BatchNorm2d(3)
    usual = torch.nn.BatchNorm2d(3)
    monkeypatch.setattr("recycle_cli.training.parallel.batch_norm._sum_over_ranks", torch.clone)
    with WholeBatchNorm():
        found = own(rows)
    torch.testing.assert_close(found, usual(rows))
    torch.testing.assert_close(own.running_mean, usual.running_mean)
    torch.testing.assert_close(own.running_var, usual.running_var)
    with WholeBatchNorm():
        torch.testing.assert_close(own.eval()(rows), usual.eval()(rows))
