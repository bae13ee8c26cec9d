"""Samples to rows: run the frozen trunk over what a store lacks, and prove that stored rows are what it gives."""

from recycle_cli.trunk.fill import Filled, Lacking, Tally, fill
from recycle_cli.trunk.missing import Keys, Needed, absent_from, expect, held_by
from recycle_cli.trunk.origins import origins_of
from recycle_cli.trunk.parity import PROBES, check_parity
from recycle_cli.trunk.reused import Reused, reused_again, reused_from
from recycle_cli.trunk.rows import restored, rows_of
from recycle_cli.trunk.stream import (
    WINDOW_IMAGES,
    Lookup,
    Reject,
    TrunkBatch,
    Window,
    batches_of,
    by_token_budget,
    prepared_ahead,
    readable,
    usable,
    windows,
)
from recycle_cli.trunk.underway import Underway

__all__ = [
    "PROBES",
    "WINDOW_IMAGES",
    "Filled",
    "Keys",
    "Lacking",
    "Lookup",
    "Needed",
    "Reject",
    "Reused",
    "Tally",
    "TrunkBatch",
    "Underway",
    "Window",
    "absent_from",
    "batches_of",
    "by_token_budget",
    "check_parity",
    "expect",
    "fill",
    "held_by",
    "origins_of",
    "prepared_ahead",
    "readable",
    "restored",
    "reused_again",
    "reused_from",
    "rows_of",
    "usable",
    "windows",
]
