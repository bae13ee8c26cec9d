"""The memory that reading and writing take, as the kernel measures it in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PREAMBLE = f"""
import pathlib, resource, sys
sys.path[:0] = [{str(HERE.parent)!r}, {str(HERE.parents[1])!r}]
import numpy as np
from recycle_cli.recipe import Recipe
from recycle_cli.store import EncodedRows, Store
recipe = Recipe("text", {{"model_type": "tiny"}}, {{"2": "0"}}, "none")
path, argument = sys.argv[1], int(sys.argv[2])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
def key(numbers):
    return np.repeat(np.asarray(numbers, "<u8"), 2).view(np.uint8).reshape(-1, 16).copy()
rows = np.arange(64 * 1024, dtype="<u2").reshape(64, 1024).view("<f2") * np.float16(0)
"""

WRITE = """
store = Store.create_or_open(path, recipe, {})
with store.writer(segment_bytes=8 << 20, codec="lz4" if "lz4" in path else "none") as writer:
    for number in range(argument):
        writer.append(key([number]), key([number]), np.array([64]), {"2": EncodedRows(rows)})
print(peak())
"""

EPOCH = """
import numcodecs.blosc
store = Store.open(path)
positions, before = store.positions(), peak()
samples = 0
for window in store.windows("2", positions, memory=argument, seed=0, batch_size=32):
    for start in range(0, len(window), 32):
        chosen = window.positions[start : start + 32]
        window.gather(chosen)
        samples += len(chosen)
assert samples == len(store)
print(peak() - before)
"""


FILES = """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (argument, hard))
store = Store.open(path)
positions = store.lookup(key(range(60)), key(range(60)))
print(len(store.gather_rows("2", positions)[0]))
"""


def measured(code, *arguments):
    command = [sys.executable, "-c", PREAMBLE + code, *map(str, arguments)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_writing_twenty_times_as_much_takes_no_more_memory(tmp_path, codec):
    small = measured(WRITE, tmp_path / f"small-{codec}.zarr", 40)
    large = measured(WRITE, tmp_path / f"large-{codec}.zarr", 800)
    assert large <= 1.2 * small


def test_an_epoch_stays_within_the_memory_it_was_given(tmp_path):
    """The decoded rows of this compressed store are five times as large."""
    path = tmp_path / "lz4.zarr"
    measured(WRITE, path, 1600)  # 200 MiB of float16 rows
    memory = 40 << 20
    assert measured(EPOCH, path, memory) <= memory


def test_a_store_of_many_files_opens_below_a_low_limit_of_open_files(tmp_path):
    path = tmp_path / "many.zarr"
    measured(WRITE.replace("8 << 20", "1"), path, 60)
    assert len(list((path / "segments").glob("2*"))) == 60
    assert measured(FILES, path, 50) == 60 * 64
