"""What a training cannot be, known from its samples and its batches before anything is computed."""

from types import SimpleNamespace

import numpy as np
import pytest

from recycle_cli.batches import Epoch, RawInputs, WindowedRows
from recycle_cli.corpus import Example
from recycle_cli.errors import DataError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.settings import TrainingSettings
from recycle_cli.tasks import Classification, Similarity
from recycle_cli.training import check_data, checked_batches, read_one

SETTINGS = TrainingSettings(batch_size=10)


def groups(labels):
    """A sample of each label."""
    samples = [Sample(str(number), {"text": str(number)}) for number in range(len(labels))]
    examples = [Example(sample.id, (sample,), label) for sample, label in zip(samples, labels, strict=True)]
    return read_one(examples, Similarity(), lambda: None)


class Windows(WindowedRows):
    """Windows of ten neighbouring samples, each a batch."""

    def epoch(self, sampler, number):
        return Epoch(np.split(np.arange(len(self.lengths)), range(10, len(self.lengths), 10)), lambda start: iter(()))


def in_windows(data):
    return Windows(SimpleNamespace(lengths=np.ones(len(data), dtype=np.int64)), 5_000)


def test_windows_that_hold_a_single_group_are_refused():
    apart, mixed = groups("a" * 30 + "b" * 30), groups("ab" * 30)
    with pytest.raises(
        UsageError, match=r"read in windows of 5,000 bytes, 0% of the samples.*--in-memory, or .*--memory"
    ):
        checked_batches(Similarity(), apart, in_windows(apart), SETTINGS)
    checked_batches(Similarity(), mixed, in_windows(mixed), SETTINGS)
    checked_batches(Classification(), apart, in_windows(apart), SETTINGS)


def test_more_memory_is_no_remedy_where_the_groups_themselves_leave_batches_of_one():
    rare = groups("a" * 96 + "b" * 4)
    for source in (in_windows(rare), RawInputs(None, [], np.ones(100, dtype=np.int64))):
        with pytest.raises(
            UsageError, match=r"^(8|10)% of the samples would.*give a larger --batch-size, or fewer --group"
        ):
            checked_batches(Similarity(), rare, source, SETTINGS)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([0, 1, 2], "all of the 3 samples have the label 'a', expected at least two groups"),
        ([0, 3], "no two of the 2 samples have the same label"),
    ],
)
def test_too_few_groups_are_refused_to_train_and_to_evaluate_on(kept, message):
    data = groups("aaab")
    left = data.take(np.array(kept))
    with pytest.raises(DataError, match=f"^{message}"):
        check_data(Similarity(), [(left, None)])
    with pytest.raises(DataError, match=f"^--eval: {message}"):
        check_data(Similarity(), [(data, left)])
    check_data(Similarity(), [(data, data)])
    check_data(Classification(), [(left, left)])
