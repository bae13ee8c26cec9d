"""The activation store: a Zarr v3 group of sealed segments. Samples are found by content key, and rows are mapped."""

from recycle_cli.store.collect import gc
from recycle_cli.store.describe import info
from recycle_cli.store.dtypes import EncodedRows, decode, encode
from recycle_cli.store.evict import evict, remove_leftovers
from recycle_cli.store.export import export
from recycle_cli.store.find import find
from recycle_cli.store.merge import merge
from recycle_cli.store.origins import RECORD, UNKNOWN, VIEW, Origins, views_in
from recycle_cli.store.remove import remove
from recycle_cli.store.store import Store
from recycle_cli.store.verify import verify
from recycle_cli.store.windows import RowWindow
from recycle_cli.store.writer import SegmentWriter

__all__ = [
    "RECORD",
    "UNKNOWN",
    "VIEW",
    "EncodedRows",
    "Origins",
    "RowWindow",
    "SegmentWriter",
    "Store",
    "decode",
    "encode",
    "evict",
    "export",
    "find",
    "gc",
    "info",
    "merge",
    "remove",
    "remove_leftovers",
    "verify",
    "views_in",
]
