"""The training's own rows: each sample once, found again after a kill, and nothing left of what was unfinished."""

import numpy as np
import pytest
import torch

from recycle_cli.batches import Shuffled
from recycle_cli.recipe import Recipe
from recycle_cli.store.liveness import unique_id
from recycle_cli.training.freezing.scratch import Contents, Scratch

RECIPE = Recipe("text", {}, {"1": "digest"}, "preprocessor", dtype="float32")
LENGTHS = np.array([2, 1, 3, 2])


@pytest.fixture
def scratch(tmp_path):
    """Of four training samples, the first and the last equal, and two others to evaluate on, one of them the second."""
    keys = np.arange(96, dtype=np.uint8).reshape(6, 16)
    train, test = keys[[0, 1, 2, 0]], keys[[3, 1]]
    return Scratch(tmp_path, None, Contents([(train, train), (test, test)]), "float32", None)


def rows(members):
    """Rows that tell their sample and their place; those behind a sample's length must not be stored."""
    return torch.tensor([[[10.0 * member + place, 1.0] for place in range(3)] for member in members])


def add(new, part, members, lengths=LENGTHS):
    new.add(part, np.array(members), rows(members), torch.from_numpy(lengths[members]))


def test_rows_are_read_in_any_batches(scratch):
    new = scratch.begin(RECIPE)
    add(new, 0, [0, 3, 2])
    assert new.lacking.sum() == 2
    add(new, 0, [1])
    add(new, 1, [0, 1], np.array([1, 1]))
    assert not new.lacking.any()
    new.close()
    store = scratch.open(RECIPE)
    assert len(store) == 4
    read = scratch.reading(store, 0)
    for members in Shuffled(2, 0).batches(LENGTHS, 1):
        batch = read.load(members)
        for member, own, length in zip(members, batch["rows"], batch["lengths"], strict=True):
            content = 0 if member == 3 else member  # the first of two equal samples was written
            assert length == LENGTHS[member]
            assert torch.equal(own[:length], rows([content])[0, :length])
    evaluated = scratch.reading(store, 1).load(np.array([0, 1]))
    assert torch.equal(evaluated["rows"][:, 0], rows([0, 1])[:, 0])
    assert scratch.rows([LENGTHS, np.array([1, 1])]) == 2 + 1 + 3 + 1


def test_what_was_sealed_is_not_written_again_and_drafts_of_the_dead_are_removed(scratch):
    new = scratch.begin(RECIPE)
    add(new, 0, [0, 1])
    new.seal()
    left = scratch.path(RECIPE) / "tmp" / unique_id()  # of a process that was killed: nobody holds its lock
    left.mkdir()
    (left / "values").write_bytes(bytes(1000))
    again = scratch.begin(RECIPE)
    assert not left.exists()
    assert again.lacking.sum() == 2
    assert scratch.open(RECIPE) is None
    add(again, 0, [0, 1, 2])
    add(again, 1, [0], np.array([1]))
    again.close()
    assert len(scratch.open(RECIPE)) == 4
    assert scratch.open(RECIPE).rows == 7
    new.close()


def test_stores_of_other_cuts_are_removed(scratch):
    for cut in ("1", "2"):
        scratch.begin(Recipe("text", {}, {cut: "digest"}, "preprocessor", dtype="float32")).close()
    assert len(list(scratch.folder.iterdir())) == 2
    scratch.keep_only([RECIPE])
    assert [one.name for one in scratch.folder.iterdir()] == [RECIPE.fingerprint]
