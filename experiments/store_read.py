"""Compare how fast our store and other formats read the same samples, and how fast our store writes beside `cp`.

    pip install h5py plyvel tensorstore zarrs
    python experiments/store_read.py STORE [--seconds 2] [--repeats 3] [--folder DIR]

STORE is a float16 store of real activations, made by `recycle precompute`. Its samples are written once in every
format, to a temporary folder in `--folder`. The first table has the speed of writing. The second has samples a second
for single random samples and for shuffled batches of 32 and 256, the same in the same order for all readers; each batch
is a padded array of its own, as training takes it. Both are medians of the repeats, and the contenders take turns. A
slow contender reads the first part of the order, for about `--seconds`. The page cache holds everything, so this
measures the readers and not the disk. Prints Markdown tables.
"""

import argparse
import os
import pickle  # measured because earlier tools keep activations in pickles; the package itself never uses it
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import h5py
import numpy as np
import plyvel
import safetensors.numpy
import tensorstore
import torch
import zarr

from recycle_cli.recipe import Recipe
from recycle_cli.store import EncodedRows, Store, decode, encode

SIZES = (1, 32, 256)
KINDS = (("float16", "none"), ("int8", "none"), ("float16", "lz4"), ("float16", "zstd"), ("int8", "lz4"))
Load = Callable[[np.ndarray], object]
Sample = Callable[[int], np.ndarray]


class Data:
    """All samples of the given store in memory, in the order of their keys."""

    def __init__(self, path: str) -> None:
        store = Store.open(path)
        assert store.recipe.dtype == "float16", "the bench compares formats on the same float16 rows"
        (self.cut, *_) = store.recipe.cuts
        self.recipe = store.recipe
        positions = store.positions()
        self.keys = store.keys(positions)
        self.lengths = store.lengths(positions)
        self.values, _ = store.gather_rows(self.cut, positions)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self.bounds = self.offsets.tolist()
        self.width = int(self.values.shape[1])

    def __len__(self) -> int:
        return len(self.keys)

    def sample(self, number: int) -> np.ndarray:
        """Rows of one sample (length, width)."""
        return self.values[self.bounds[number] : self.bounds[number + 1]]


def write_ours(data: Data, path: Path, dtype: str, codec: str) -> float:
    """Write and seal everything in appends of 64 samples; return the seconds it took."""
    recipe = Recipe.from_json({**data.recipe.to_json(), "dtype": dtype})
    rows = encode(decode(data.values, None, "float16"), dtype)
    store = Store.create_or_open(str(path), recipe, {})
    began = time.perf_counter()
    with store.writer(codec=codec) as writer:
        for start in range(0, len(data), 64):
            stop = min(start + 64, len(data))
            low, high = data.bounds[start], data.bounds[stop]
            part = EncodedRows(rows.values[low:high], None if rows.scales is None else rows.scales[low:high])
            writer.append(data.keys[start:stop], data.keys[start:stop], data.lengths[start:stop], {data.cut: part})
    return time.perf_counter() - began


def write_plain(data: Data, path: Path) -> float:
    """Write the same bytes to one file and sync it, as `cp` and `fsync` would; return the seconds it took."""
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), 64):
            part = data.values[data.bounds[start] : data.bounds[min(start + 64, len(data))]]
            file.write(memoryview(part).cast("B"))
        os.fsync(file.fileno())
    return time.perf_counter() - began


def others(data: Data, folder: Path) -> Iterator[tuple[str, Sample]]:
    """Yield (name, function that reads one sample) for every format but ours."""
    for codec in ("none", "lz4"):
        (segment, *more) = Store.open(str(folder / f"float16-{codec}.zarr")).segments
        assert not more, "one segment, so that every reader sees one array"
        place = segment.where(f"cuts/{data.cut}/values")
        plain = zarr.open_array(place, mode="r")
        order = np.argsort(np.argsort(Store.open(str(folder / f"float16-{codec}.zarr")).find(data.keys)))
        assert (order == np.arange(len(data))).all(), "our store keeps the order of its appends"
        yield f"zarr-python, {codec}", lambda n, array=plain: array[data.bounds[n] : data.bounds[n + 1]]
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quick = zarr.open_array(place, mode="r")
        yield f"zarr-python + zarrs, {codec}", lambda n, array=quick: array[data.bounds[n] : data.bounds[n + 1]]
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": place}}
        tensor = tensorstore.open(spec, read=True, open=True).result()
        yield f"tensorstore, {codec}", lambda n, t=tensor: t[data.bounds[n] : data.bounds[n + 1]].read().result()
    yield from files(data, folder)
    yield from tables(data, folder)


def files(data: Data, folder: Path) -> Iterator[tuple[str, Sample]]:
    """Yield the readers of formats with one file for each sample."""
    for kind in ("pt", "safetensors"):
        (folder / kind).mkdir()
    for number in range(len(data)):
        torch.save(torch.from_numpy(data.sample(number).copy()), folder / f"pt/{number}.pt")
        safetensors.numpy.save_file({"rows": data.sample(number)}, folder / f"safetensors/{number}.safetensors")
    yield "one .pt a sample", lambda n: torch.load(folder / f"pt/{n}.pt", weights_only=True).numpy()
    yield (
        "one safetensors a sample",
        lambda n: safetensors.numpy.load_file(folder / f"safetensors/{n}.safetensors")["rows"],
    )


def tables(data: Data, folder: Path) -> Iterator[tuple[str, Sample]]:
    """Yield the readers of databases and tables."""
    level = plyvel.DB(str(folder / "level"), create_if_missing=True)
    for number in range(len(data)):
        level.put(number.to_bytes(8, "big"), pickle.dumps(data.sample(number)))
    yield "pickle in LevelDB", lambda n: pickle.loads(level.get(n.to_bytes(8, "big")))  # noqa: S301 - bytes that we wrote
    rows = ({"rows": data.sample(number).reshape(-1)} for number in range(len(data)))
    features = datasets.Features({"rows": datasets.Sequence(datasets.Value("float16"))})
    table = datasets.Dataset.from_list(list(rows), features=features)
    table.save_to_disk(str(folder / "arrow"))
    table = datasets.load_from_disk(str(folder / "arrow")).with_format("numpy")
    yield "Arrow through datasets", lambda n: table[n]["rows"].reshape(-1, data.width)
    with h5py.File(folder / "rows.h5", "w") as file:
        file.create_dataset("rows", data=data.values)
    hdf5 = h5py.File(folder / "rows.h5")["rows"]
    yield "HDF5", lambda n: hdf5[data.bounds[n] : data.bounds[n + 1]]


def padded(data: Data, sample: Sample, members: np.ndarray) -> np.ndarray:
    """Read the members one by one into a batch padded with zeros."""
    out = np.zeros((len(members), int(data.lengths[members].max()), data.width), "<f2")
    for slot, number in zip(out, members.tolist(), strict=True):
        rows = sample(number)
        slot[: len(rows)] = rows
    return out


def rate(load: Load, order: np.ndarray, size: int, seconds: float) -> float:
    """Read batches in this order for about `seconds`; return samples a second."""
    done = 0
    began = time.perf_counter()
    for start in range(0, len(order) - size + 1, size):
        load(order[start : start + size])
        done += size
        if time.perf_counter() - began > seconds:
            break
    return done / (time.perf_counter() - began)


def windows_rate(data: Data, store: Store, size: int) -> float:
    """Samples a second of an epoch in windows, with memory for the whole store; compressed stores are read this way."""
    positions = store.positions()
    done = 0
    began = time.perf_counter()
    for window in store.windows(data.cut, positions, memory=store.bytes, seed=0, batch_size=size):
        for start in range(0, len(window) - size + 1, size):
            window.gather(window.positions[start : start + size])
            done += size
    return done / (time.perf_counter() - began)


def ours(data: Data, folder: Path) -> dict[str, tuple[Load, Store]]:
    """Our stores by name, each with a function that loads a batch."""
    found: dict[str, tuple[Load, Store]] = {}
    for dtype, codec in KINDS:
        store = Store.open(str(folder / f"{dtype}-{codec}.zarr"))
        positions = store.find(data.keys)

        def load(members: np.ndarray, store: Store = store, positions: np.ndarray = positions) -> object:
            return store.gather(data.cut, positions[members])

        found[f"recycle, {dtype}, {codec}"] = (load, store)
    return found


def read_table(data: Data, folder: Path, seconds: float, repeats: int) -> None:
    """Print samples a second of every reader, and their share of np.memmap's."""
    mine = ours(data, folder)
    path = folder / "rows.bin"
    data.values.tofile(path)
    mapped = np.memmap(path, data.values.dtype, "r", shape=data.values.shape)
    single = [("np.memmap", lambda n: mapped[data.bounds[n] : data.bounds[n + 1]]), *others(data, folder)]
    contenders: dict[str, Load] = {
        name: lambda members, sample=sample: padded(data, sample, members) for name, sample in single
    }
    contenders |= {name: load for name, (load, _) in mine.items()}
    rates: dict[str, dict[int, list[float]]] = {name: {size: [] for size in SIZES} for name in contenders}
    for name, (_, store) in mine.items():
        if not store.is_mapped(data.cut):
            rates[f"{name}, windows"] = {size: [] for size in SIZES}
    for repeat in range(repeats):
        order = np.random.default_rng(repeat).permutation(len(data))
        for size in SIZES:
            for name, load in contenders.items():
                rates[name][size].append(rate(load, order, size, seconds))
            for name, (_, store) in mine.items():
                if f"{name}, windows" in rates:
                    rates[f"{name}, windows"][size].append(windows_rate(data, store, size))
    limit = {size: statistics.median(rates["np.memmap"][size]) for size in SIZES}
    print("| reader | 1 | of memmap | 32 | of memmap | 256 | of memmap |\n|---|---|---|---|---|---|---|")
    for name, by_size in rates.items():
        cells = [
            f"{statistics.median(by_size[size]):,.0f} | {statistics.median(by_size[size]) / limit[size]:.2f}"
            for size in SIZES
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def write_table(data: Data, folder: Path, repeats: int) -> None:
    """Print the speed of writing and the bytes kept, beside one plain file; leaves our stores in `folder`."""
    seconds: dict[str, list[float]] = {}
    for repeat in range(repeats):
        seconds.setdefault("one file + fsync", []).append(write_plain(data, folder / f"plain-{repeat}.bin"))
        (folder / f"plain-{repeat}.bin").unlink()
        for dtype, codec in KINDS:
            path = folder / f"{dtype}-{codec}.zarr"
            if path.exists():
                shutil.rmtree(path)
            seconds.setdefault(f"recycle, {dtype}, {codec}", []).append(write_ours(data, path, dtype, codec))
    limit = statistics.median(seconds["one file + fsync"])
    print("| writer | MB/s of float16 rows | of one file + fsync | bytes kept |\n|---|---|---|---|")
    for name, taken in seconds.items():
        kept = "1.00"
        if name.startswith("recycle"):
            _, dtype, codec = name.split(", ")
            kept = f"{Store.open(str(folder / f'{dtype}-{codec}.zarr')).bytes / data.values.nbytes:.2f}"
        speed = data.values.nbytes / statistics.median(taken)
        print(f"| {name} | {speed / 1e6:,.0f} | {limit / statistics.median(taken):.2f} | {kept} |")


def main() -> None:
    """Print the table of writers, then that of readers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    data = Data(options.store)
    print(f"{len(data):,} samples, {data.values.nbytes / 1e6:,.0f} MB of float16 rows x {data.width}\n")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_table(data, Path(folder), options.repeats)
        print()
        read_table(data, Path(folder), options.seconds, options.repeats)


if __name__ == "__main__":
    main()
