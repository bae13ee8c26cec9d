"""Metrics of what was labelled, whichever classes it has."""

import pytest
import torch

from recycle_cli.tasks import Classification, MultiLabel, Scores, Similarity, scores

OUTPUTS = torch.eye(4)[:, :3]


def test_only_labelled_samples_count():
    found = Scores(Classification(), ["a", "b", "c"])
    assert found.figures() is None
    assert found.why_none(None) == "no column of labels was found; --label-column names one"
    assert found.why_none("y") == "no record has a label in the column 'y'"
    found.add(OUTPUTS, ["a", None, "c", None])
    found.add(OUTPUTS[:1], [None])
    assert found.figures()["accuracy"] == 1
    assert found.why_none("y") is None


@pytest.mark.parametrize(("task", "label"), [(Classification(), "z"), (MultiLabel(), ("a", "z"))])
def test_a_class_that_the_run_does_not_know_leaves_no_metrics(task, label):
    found = Scores(task, ["a", "b", "c"])
    found.add(OUTPUTS[:1], [label])
    assert found.figures() is None
    assert "'z' is not one of the run's classes (a, b, c)" in found.why_none("y")


def test_groups_need_not_be_known():
    found = Scores(Similarity(), ["0", "1", "2"])
    found.add(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.9, 0, 0], [0, 0.9, 0]]), ["x", "y", "x", "y"])
    assert found.figures() == {"rrp": 1.0}


def test_too_many_are_not_compared(monkeypatch):
    monkeypatch.setattr(scores, "MOST_TO_COMPARE", 3)
    found = Scores(Similarity(), ["0"])
    for _ in range(3):
        found.add(OUTPUTS[:2], ["x", "y"])
    assert found.figures() is None
    assert not found.outputs
    assert "more than 3 labelled samples" in found.why_none("y")


def test_labels_of_which_no_two_are_equal_are_no_groups():
    found = Scores(Similarity(), ["0"])
    found.add(OUTPUTS, ["w", "x", "y", "z"])
    assert found.figures() is None
    assert found.why_none("y") == "no two labelled samples share a group"
    found.add(OUTPUTS[:1], ["x"])
    assert set(found.figures()) == {"rrp"}
