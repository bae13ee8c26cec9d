"""A bar of records moves on by records, however many samples each has and whatever becomes of them."""

from contextlib import nullcontext

import pytest

from recycle_cli.corpus import Corpus
from recycle_cli.corpus.progress import RecordsDone
from recycle_cli.reports import Bar
from recycle_cli.settings import CorpusSettings


class Counting(Bar):
    """A bar that keeps what it is told."""

    def __init__(self):
        self.records, self.notes = [], []

    def update(self, advance=0, *, note=None, total=None):
        self.records.append(advance)
        self.notes.append(note)


@pytest.mark.parametrize(
    ("expected", "told", "records"),
    [
        ([1, 1, 1], [1, 1, 1], [1, 1, 1]),
        ([3, 1], [1, 1, 1, 1], [0, 0, 1, 1]),
        ([3, 1], [4], [2]),
        ([1, 0, 0, 2], [1, 1, 1], [3, 0, 1]),
        ([2, 2], [0, 3], [0, 1]),
    ],
)
def test_a_record_counts_with_its_last_sample(expected, told, records):
    drawn = Counting()
    progress = RecordsDone(drawn)
    for samples in expected:
        progress.expect(samples)
    for samples in told:
        progress.update(samples, note="rows")
    assert drawn.records == records
    assert drawn.notes == ["rows"] * len(told)


def test_a_record_and_its_views_count_once():
    drawn = Counting()
    progress = RecordsDone(drawn, copies=3)
    progress.expect(1)
    progress.expect(2)
    for samples in (2, 1, 5, 1):
        progress.update(samples)
    assert drawn.records == [0, 1, 0, 1]


def test_a_bar_of_a_corpus_ends_at_its_total(tmp_path, monkeypatch):
    """Records that cannot be used are done with, too."""
    drawn = Counting()
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in ("a", "", "b", "c", "")))
    corpus = Corpus(CorpusSettings((str(path),), on_error="skip"))
    monkeypatch.setattr("recycle_cli.corpus.corpus.bar", lambda description, total: nullcontext(drawn))
    with corpus.progress("reading") as progress:
        for _ in corpus.samples():
            progress.update(1)
        progress.update()
    assert sum(drawn.records) == 5
