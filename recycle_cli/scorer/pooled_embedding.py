"""Embeddings from a store that holds the pooled vectors of a model's last block: nothing is left to compute."""

from recycle_cli.batches import Tensors
from recycle_cli.errors import MismatchError
from recycle_cli.models import SplitModel
from recycle_cli.models.outputs import Outputs
from recycle_cli.training.head import Head

_NAMES = {"lasttoken": "last"}
"""Poolings that a store names otherwise than sentence-transformers does."""


class PooledEmbedding(Head):
    """Takes the vector that the model itself pools from those that a store holds.

    Raises MismatchError if the store lacks it, or holds it of another state than the last.
    """

    def __init__(self, split: SplitModel, cut: str, pooling: str) -> None:
        super().__init__(split, cut, (cut,), {})
        name = _NAMES.get(pooling, pooling)
        if cut != str(split.blocks) or name not in split.poolings:
            raise MismatchError(
                f"the store holds {', '.join(split.poolings)} of the state after block {cut}; embeddings need "
                f"--pool {name} at --cut {split.blocks}, or a store of rows"
            )
        self._place = split.poolings.index(name)

    def forward(self, batch: Tensors) -> Outputs:
        """Pooled vectors (B, poolings, width) to embeddings (B, width)."""
        return Outputs(batch["rows"][:, self._place].float())
