"""A corpus counted ahead, for the time left."""

import threading

import pytest

from recycle_cli.corpus import Corpus
from recycle_cli.reports import Bar
from recycle_cli.settings import CorpusSettings


class Shown(Bar):
    """A bar that somebody watches; keeps the totals it is told."""

    shown = True

    def __init__(self):
        super().__init__()
        self.totals = []

    def update(self, advance=0, *, note=None, total=None):
        self.totals.append(total)


def counted(path, bar, **settings):
    before = set(threading.enumerate())  # other tests and libraries leave threads that never end
    Corpus(CorpusSettings((str(path),), **settings)).count_ahead(bar)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    return bar.totals


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(f'{{"text": "t{number}"}}\n' for number in range(7)) + '{"text": ""}\n')
    return path


def test_records_are_counted_ahead_where_somebody_watches(corpus):
    """Those that cannot be used, too: the bar moves on by them."""
    assert counted(corpus, Shown()) == [8]


def test_the_limit_bounds_the_count(corpus):
    assert counted(corpus, Shown(), limit=3) == [3]


def test_nothing_is_counted_where_nobody_watches(corpus):
    bar = Shown()
    bar.shown = False
    assert counted(corpus, bar) == []
