"""Rows or inputs to shuffled padded batches: a source reads them, a sampler draws which samples share a batch."""

from recycle_cli.batches.group_sampler import Grouped, met_share
from recycle_cli.batches.inputs import Images, RawInputs, inputs_source
from recycle_cli.batches.pair_sampler import Paired
from recycle_cli.batches.sampler import Indices, InOrder, Sampler, Shuffled, in_order, shuffled
from recycle_cli.batches.several import SeveralCuts, at_cut, each_rows, joined, source_at
from recycle_cli.batches.shared import SharedBatch, places_in, ready, subset
from recycle_cli.batches.shares import ShareOfRows, Shares
from recycle_cli.batches.source import INPUTS, Batch, Epoch, RowSource, Tensors, order_digest
from recycle_cli.batches.stored import StoredRows, widened
from recycle_cli.batches.windowed import WindowedRows, stored_source

__all__ = [
    "INPUTS",
    "Batch",
    "Epoch",
    "Grouped",
    "Images",
    "InOrder",
    "Indices",
    "Paired",
    "RawInputs",
    "RowSource",
    "Sampler",
    "SeveralCuts",
    "ShareOfRows",
    "SharedBatch",
    "Shares",
    "Shuffled",
    "StoredRows",
    "Tensors",
    "WindowedRows",
    "at_cut",
    "each_rows",
    "in_order",
    "inputs_source",
    "joined",
    "met_share",
    "order_digest",
    "places_in",
    "ready",
    "shuffled",
    "source_at",
    "stored_source",
    "subset",
    "widened",
]
