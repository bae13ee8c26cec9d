"""Write a store, or check one with our reader and with zarr-python alone, to try two installations on each other.

OTHER/bin/python tests/store/exchange.py write STORE && python tests/store/exchange.py check STORE
"""

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import numpy as np  # noqa: E402
import zarr  # noqa: E402
from store.corpora import Corpus  # noqa: E402

from recycle_cli.store import Store, gc, info, verify  # noqa: E402

KINDS = [("float16", "none"), ("bfloat16", "zstd"), ("float32", "lz4"), ("int8", "lz4"), ("int4", "none")]


def write(folder: Path) -> None:
    for dtype, codec in KINDS:
        corpus = Corpus(dtype, cuts=("1", "2"), shape=(64,), longest=900)
        corpus.store(folder / f"{dtype}.zarr", range(30), segment_bytes=500_000, codec=codec)


def check(folder: Path) -> None:
    for dtype, codec in KINDS:
        corpus = Corpus(dtype, cuts=("1", "2"), shape=(64,), longest=900)
        store = Store.open(str(folder / f"{dtype}.zarr"), corpus.recipe)
        corpus.check(store, range(30))
        assert verify(store.path)["damaged"] == []
        root = zarr.open_group(store.path, mode="r")
        for segment in store.segments:
            for name in segment.specs:
                ours = segment._row_array(name) if name.endswith(("values", "scales")) else segment._whole(name)
                np.testing.assert_array_equal(root[f"segments/{segment.id}/{name}"][...], ours[0 : len(ours)])
        corpus.store(store.path, range(20, 40), codec=codec)
        gc(store.path)
        store.refresh()
        corpus.check(store, range(40))
        assert info(store.path)["duplicates"] == 0


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps({"done": sys.argv[1], "python": sys.version.split()[0], "zarr": zarr.__version__}))
