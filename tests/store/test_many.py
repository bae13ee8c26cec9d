"""Several processes on one store, with no lock and nothing shared but the folder."""

import subprocess
import sys
from pathlib import Path

from recycle_cli.store import Store, gc, info, verify

from .corpora import Corpus

HERE = Path(__file__).resolve().parent
PREAMBLE = f"import sys; sys.path[:0] = [{str(HERE.parent)!r}, {str(HERE.parents[1])!r}]\n"

WRITE = """
from store.corpora import Corpus
path, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
Corpus().store(path, range(first, last), batch=3, segment_bytes=400)
"""

READ = """
import pathlib
from recycle_cli.store import Store
from store.corpora import Corpus
corpus, path, done, seen = Corpus(), sys.argv[1], pathlib.Path(sys.argv[2]), 0
store = Store.create_or_open(path, corpus.recipe, {})
while True:
    last = done.exists()
    store.refresh()
    positions = store.lookup(*corpus.keys(range(160)))
    there = [number for number, position in enumerate(positions.tolist()) if position >= 0]
    corpus.check(store, there)
    assert len(there) >= seen, "a sample that was there is gone"
    seen = len(there)
    if last:
        break
assert seen == 160, seen
"""


def start(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", PREAMBLE + code, *map(str, arguments)])


def test_four_write_what_overlaps_while_a_fifth_reads(tmp_path):
    path, done = str(tmp_path / "s.zarr"), tmp_path / "done"
    reader = start(READ, path, done)
    writers = [start(WRITE, path, first, first + 70) for first in (0, 30, 60, 90)]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    done.touch()
    assert reader.wait() == 0
    corpus = Corpus()
    assert len(Store.open(path)) == 160
    assert info(path)["duplicates"] == 4 * 70 - 160
    assert verify(path)["damaged"] == []
    gc(path)
    corpus.check(Store.open(path), range(160))
    assert info(path)["duplicates"] == 0
