"""Metrics of what was labelled, whichever classes it has."""

import pytest
import torch

from recycle_cli.corpus import Example
from recycle_cli.keys import Sample
from recycle_cli.models.outputs import Outputs
from recycle_cli.tasks import Classification, LabelledScores, MultiLabel, Similarity, similarity

OUTPUTS = torch.eye(4)[:, :3]


def scores_of(task, names):
    return LabelledScores(task, names, lambda: None)


def add(scores, outputs, labels):
    examples = [Example("0", (Sample("0", {"text": "x"}),), label) for label in labels]
    scores.add(examples, Outputs(outputs))


def test_only_labelled_samples_count():
    found = scores_of(Classification(), ["a", "b", "c"])
    assert found.figures() is None
    assert found.why_none(None) == "no column of labels was found; --label-column names one"
    assert found.why_none("y") == "no record has a label in the column 'y'"
    add(found, OUTPUTS, ["a", None, "c", None])
    add(found, OUTPUTS[:1], [None])
    assert found.figures()["accuracy"] == 1
    assert found.why_none("y") is None


@pytest.mark.parametrize(("task", "label"), [(Classification(), "z"), (MultiLabel(), ("a", "z"))])
def test_a_class_that_the_run_does_not_know_leaves_no_metrics(task, label):
    found = scores_of(task, ["a", "b", "c"])
    add(found, OUTPUTS[:1], [label])
    assert found.figures() is None
    assert "'z' is not one of the run's classes (a, b, c)" in found.why_none("y")


def test_groups_need_not_be_known():
    found = scores_of(Similarity(), ["0", "1", "2"])
    add(found, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.9, 0, 0], [0, 0.9, 0]]), ["x", "y", "x", "y"])
    assert found.figures() == {"rrp": 1.0}


def test_too_many_are_not_compared(monkeypatch):
    monkeypatch.setattr(similarity, "MOST_TO_COMPARE", 3)
    found = scores_of(Similarity(), ["0"])
    for _ in range(3):
        add(found, OUTPUTS[:2], ["x", "y"])
    assert found.figures() is None
    assert not found.samples
    assert "more than 3 labelled samples" in found.why_none("y")


def test_labels_of_which_no_two_are_equal_are_no_groups():
    found = scores_of(Similarity(), ["0"])
    add(found, OUTPUTS, ["w", "x", "y", "z"])
    assert found.figures() is None
    assert found.why_none("y") == "no two of the 4 samples have the same label, expected groups; check the label column"
    add(found, OUTPUTS[:1], ["x"])
    assert set(found.figures()) == {"rrp"}
