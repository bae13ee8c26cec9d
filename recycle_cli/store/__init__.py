"""The activation store: a Zarr v3 group of sealed, immutable segments, mapped into memory and found by content key."""

from recycle_cli.store.dtypes import Encoded, decode, encode, numpy_dtype
from recycle_cli.store.store import Store
from recycle_cli.store.writer import SegmentWriter

__all__ = ["Encoded", "SegmentWriter", "Store", "decode", "encode", "numpy_dtype"]
