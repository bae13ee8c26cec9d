"""Measure how fast rows are read that are not in memory yet."""

import os
import time
from pathlib import Path

import numpy as np

from recycle_cli.batches import Indices, StoredRows
from recycle_cli.store import Store


def cold_bytes_per_second(store: Store, cut: str, positions: Indices, batch_size: int) -> float | None:
    """Bytes a second of gathering all samples in random order; None if the system cannot drop cached pages."""
    if not hasattr(os, "posix_fadvise"):
        return None
    rows = StoredRows.of(Store.open(store.path), cut, positions)
    order = np.random.default_rng(0).permutation(len(positions))
    forget(Path(store.path))
    started = time.perf_counter()
    for start in range(0, len(order), batch_size):
        rows.load(order[start : start + batch_size])
    seconds = time.perf_counter() - started
    return rows.bytes / seconds


def forget(folder: Path) -> None:
    """Drop the files below a folder from the page cache. Pages not yet written to disk stay."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
