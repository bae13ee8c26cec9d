"""RUNs in memory, ready to score samples: what `recycle predict` and `recycle serve` share."""

from recycle_cli.scorer.loaded_run import LoadedRun, Rows
from recycle_cli.scorer.opening import open_embedder, open_scorer
from recycle_cli.scorer.rows_head import RowsHead
from recycle_cli.scorer.scorer import Answers, RowWriter, Scorer

__all__ = ["Answers", "LoadedRun", "RowWriter", "Rows", "RowsHead", "Scorer", "open_embedder", "open_scorer"]
