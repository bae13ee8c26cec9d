"""Measure how fast a store opens and finds keys, and how much memory it takes, at 1, 10 and 100 million keys.

    python experiments/store_index.py [--keys 1000000 10000000 100000000] [--folder DIR] [--segment 1000000]

It needs Linux and only the package itself; 100 million keys take about 6 GB of disk in `--folder`. Keys are
synthetic. Each size is measured in a process of its own, after its index was made; half of the keys looked up are not
in the store. Prints one JSON object for each size.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from recycle_cli.recipe import Recipe
from recycle_cli.store import EncodedRows, Store

RECIPE = Recipe("text", {"model_type": "synthetic"}, {"pooled": "0" * 32}, "none")
BATCH = 100_000
BATCHES = 20


def content(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random keys and digests: two arrays (count, 16) uint8."""
    both = np.frombuffer(np.random.default_rng(seed).bytes(32 * count), np.uint8).reshape(count, 32)
    return np.ascontiguousarray(both[:, :16]), np.ascontiguousarray(both[:, 16:])


def resident() -> tuple[int, int]:
    """Anonymous and file-backed resident bytes of this process."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    anonymous, mapped = (int(fields[name].split()[0]) << 10 for name in ("RssAnon", "RssFile"))
    return anonymous, mapped


def make(path: str, keys: int, segment: int) -> float:
    """Write a store of so many keys in segments of `segment`, and return the seconds that its index took."""
    store = Store.create_or_open(path, RECIPE, {})
    with store.writer(segment_bytes=1 << 60) as writer:
        for seed in range(keys // segment):
            rows = {"pooled": EncodedRows(np.zeros((segment, 1), "<f2"))}
            writer.append(*content(seed, segment), np.ones(segment, np.int64), rows)
            writer.seal()
    began = time.perf_counter()
    store.refresh()
    return time.perf_counter() - began


def measure(path: str, keys: int, segment: int) -> dict[str, float]:
    """Open the store and look up batches of keys, in a process that has done nothing else."""
    anonymous, mapped = resident()
    began = time.perf_counter()
    store = Store.open(path, RECIPE)
    opened = time.perf_counter() - began
    private = resident()[0] - anonymous
    assert len(store) == keys
    there = [content(seed, segment) for seed in range(0, keys // segment, max(1, keys // segment // 4))]
    other = content(1 << 40, BATCH // 2)
    rng = np.random.default_rng(0)
    seconds, processor = [], []
    for number in range(BATCHES):
        own = there[number % len(there)]
        chosen = rng.integers(0, segment, BATCH // 2)
        mixed = rng.permutation(BATCH)
        asked = [np.concatenate([mine[chosen], new])[mixed] for mine, new in zip(own, other, strict=True)]
        began, busy = time.perf_counter(), time.process_time()
        found = store.lookup(*asked)
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - busy)
        assert (found >= 0).sum() == BATCH // 2
    after = resident()
    return {
        "keys": keys,
        "segments": len(store.segments),
        "open_seconds": opened,
        "lookups_per_second": BATCH / float(np.median(seconds)),
        "lookups_per_cpu_second": BATCH / float(np.median(processor)),
        "first_batch_lookups_per_second": BATCH / seconds[0],
        "anonymous_bytes_per_key": private / keys,
        "mapped_bytes_per_key": (after[1] - mapped) / keys,
    }


def main() -> None:
    """Make a store of each size and measure it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=[10**6, 10**7, 10**8])
    parser.add_argument("--segment", type=int, default=10**6)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.keys[0], options.segment)))
        return
    for keys in options.keys:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = f"{folder}/keys.zarr"
            built = make(path, keys, options.segment)
            command = [sys.executable, __file__, "--measure", path, "--keys", str(keys)]
            result = subprocess.run(
                [*command, "--segment", str(options.segment)], check=True, stdout=subprocess.PIPE, text=True
            )
            print(json.dumps({**json.loads(result.stdout), "index_seconds": built}), flush=True)


if __name__ == "__main__":
    main()
