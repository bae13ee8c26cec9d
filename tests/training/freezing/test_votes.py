"""Votes on what freezes: their weights by hand, and two processes that vote."""

import numpy as np
import pytest

from recycle_cli.training.freezing.votes import elected, weights_of
from tests.conftest import save_tiny, tiny_config
from tests.ranks import run_ranks, trained_by
from tests.records import records, write_csv
from tests.trainings import log_of


def test_weights_are_shares_of_the_samples():
    assert weights_of(np.array([[30.0], [10.0]])) == [0.75, 0.25]


def test_labels_unlike_all_others_weigh_less():
    """By the formula: all labels are (0.5, 0.5); (1, 0) is 0.5 away from it, (0.4, 0.6) is 0.1."""
    labels = np.array([[10.0, 0.0], [40.0, 60.0], [50.0, 40.0]])
    share = labels.sum(axis=0) / labels.sum()
    near = [1 - abs(row / row.sum() - share).sum() / 2 for row in labels]
    found = weights_of(labels)
    expected = np.array([10 * near[0], 100 * near[1], 90 * near[2]])
    np.testing.assert_allclose(found, expected / expected.sum())
    assert near[0] == pytest.approx(0.5)


def test_ranks_without_a_sample_in_common_weigh_alike():
    assert weights_of(np.array([[0.0], [0.0]])) == [0.5, 0.5]


def test_more_than_half_of_the_weight_elects():
    assert elected([[0, 1], [0], []], [0.4, 0.3, 0.3]) == [0]
    assert elected([[0], []], [0.5, 0.5]) == []
    assert elected([[2, 3], [2]], [0.6, 0.4]) == [2, 3]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("votes")
    (folder / "bert").mkdir()
    save_tiny(folder / "bert", tiny_config(num_hidden_layers=3), bare=True)
    write_csv(folder / "train.csv", records(33))
    return folder


TRAINING = (
    "finetune",
    "train.csv",
    "--model",
    "bert",
    "--max-length",
    16,
    "--cut",
    0,
    "--epochs",
    3,
    "--no-tensorboard",
)


@pytest.mark.parametrize("votes", ["weighted", "weighted-labels"])
def test_each_rank_decides_by_its_own_gradients(recycle, place, votes):
    options = ("--freeze", "autofreeze", "--freeze-interval", 2, "--freeze-votes", votes, "--batch-size", 6)
    report = trained_by(recycle, 2, *TRAINING, *options, "--output", votes, cwd=place)
    lines = [line["freezing"] for line in log_of(place / votes) if "freezing" in line]
    assert len(lines) >= 5
    assert all(sum(vote["weight"] for vote in line["votes"]) == pytest.approx(1) for line in lines)
    assert not any(vote["chosen"] for vote in lines[0]["votes"])  # the first interval only records
    assert any(vote["chosen"] for line in lines for vote in line["votes"])
    for line in lines:
        own = [set(vote["chosen"]) for vote in line["votes"]]
        assert own[0] & own[1] <= set(line["chosen"]) <= own[0] | own[1]
    assert report["freezing"]["rule"] == "autofreeze"


def test_votes_that_cannot_be_are_refused(recycle, place):
    votes = ("--freeze-votes", "weighted")
    done = recycle(*TRAINING, "--freeze", "autofreeze", *votes, "--output", "alone", cwd=place)
    assert done.code == 2
    assert "one process has nobody to vote with" in done.err
    first, _ = run_ranks(recycle, 2, *TRAINING, "--freeze", "bound", *votes, "--output", "bound", cwd=place)
    assert first.code == 2
    assert "--freeze-votes: only --freeze gradient-norm and autofreeze takes it" in first.err
