"""Layers freeze on all ranks together: the decisions, cuts and losses of one process, and less and less is sent."""

import json

import numpy as np
import pytest

from tests.conftest import save_tiny, tiny_config
from tests.ranks import start_ranks, trained_by
from tests.records import records, write_csv
from tests.trainings import log_of, losses

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
USUAL = ("--batch-size", 6, "--learning-rate", "1e-4", "--no-tensorboard")
MODEL = ("--model", "bert", "--max-length", 16, "--cut", 0)


@pytest.fixture(scope="module")
def place(recycle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("freezing")
    (folder / "bert").mkdir()
    save_tiny(folder / "bert", tiny_config(num_hidden_layers=3, **STILL), bare=True)
    for name, count, seed in (("train.csv", 25, 0), ("test.csv", 9, 1)):
        write_csv(folder / name, records(count, seed=seed))
    return folder


def decisions(run):
    return [line["freezing"] for line in log_of(run) if "freezing" in line]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kept", ("--freeze", "bound", "--freeze-cache", "always", "--freeze-dtype", "float32", "--epochs", 4)),
        (
            "norms",
            ("--freeze", "gradient-norm", "--freeze-cache", "always", "--freeze-dtype", "float32", "--epochs", 5),
        ),
        ("in-place", ("--freeze", "autofreeze", "--freeze-cache", "never", "--epochs", 3)),
    ],
)
def test_decisions_cuts_and_losses_are_those_of_one_process(recycle, place, name, options):
    reports = [
        trained_by(
            recycle,
            count,
            *("finetune", "train.csv", "--eval", "test.csv", *MODEL, *USUAL, *options, "--output", f"{name}-{count}"),
            cwd=place,
        )
        for count in (1, 2)
    ]
    alone, together = (losses(place / f"{name}-{count}") for count in (1, 2))
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    own = [[(one["chosen"], one["frozen"], one["cut"]) for one in decisions(place / f"{name}-{n}")] for n in (1, 2)]
    assert own[0] == own[1]
    moves = [[(one["epoch"], one["cut"]) for one in report["freezing"]["moves"]] for report in reports]
    assert moves[0] == moves[1]
    if "always" in options:
        assert moves[0]
        assert not (place / f"{name}-2" / "checkpoint").exists()


def test_after_each_decision_only_what_trains_is_sent(recycle, place):
    options = ("--freeze", "bound", "--freeze-cache", "never", "--epochs", 4)
    arguments = ("finetune", "train.csv", *MODEL, *USUAL, *options, "--output", "sent")
    trained_by(recycle, 2, *arguments, cwd=place)
    shapes = json.loads((place / "sent" / "recycle.json").read_text())
    assert shapes
    sent = [line["gradient_bytes"] for line in log_of(place / "sent") if "loss" in line]
    sizes = sizes_behind(place / "bert")
    assert list(dict.fromkeys(sent)) == sizes


def sizes_behind(folder):
    """Bytes of the float32 gradients behind each of the first cuts of a BERT with a classifier of three classes."""
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    size = {name: 4 * one.numel() for name, one in model.named_parameters()}
    found = []
    for frozen in range(4):
        blocks = [f".layer.{block}." for block in range(frozen)]
        before = [name for name in size if frozen and (".embeddings." in name or any(b in name for b in blocks))]
        found.append(sum(size.values()) - sum(map(size.get, before)))
    return found


def test_a_resume_with_one_process_goes_on_with_the_rows_of_two(recycle, place):
    options = ("--freeze", "bound", "--freeze-cache", "always", "--freeze-dtype", "float32", "--epochs", 4)
    arguments = ("finetune", "train.csv", "--eval", "test.csv", *MODEL, *USUAL, *options, "--save-steps", 1)
    trained_by(recycle, 1, *arguments, "--output", "undisturbed", cwd=place)
    started = start_ranks(recycle, 2, *arguments, "--output", "stopped", cwd=place)
    log = place / "stopped" / "metrics.jsonl"
    while not log.exists() or log.read_text().count('"grad_norm"') < 12:
        assert not started[0].ended
    for one in started:
        one.send(15)
    assert [one.wait().code for one in started] == [130, 130]
    trained_by(recycle, 1, *arguments, "--output", "stopped", "--resume", cwd=place)
    np.testing.assert_allclose(losses(place / "stopped"), losses(place / "undisturbed"), rtol=0, atol=1e-5)
