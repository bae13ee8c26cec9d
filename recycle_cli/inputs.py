"""What a training or an evaluation reads: stored rows, or raw inputs where there is no store. One shape for both."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from recycle_cli.batches import Indices, StoredRows, widened
from recycle_cli.keys import Sample
from recycle_cli.models import Prepared, SplitModel, lengths_of

PREPARE_AT_ONCE = 4096


@dataclass(frozen=True)
class RawInputs:
    """Prepared inputs of samples, with their lengths (n,): what the whole model reads without a store."""

    split: SplitModel
    prepared: list[Prepared]
    lengths: Indices

    @classmethod
    def of(cls, split: SplitModel, samples: Sequence[Sample]) -> "RawInputs":
        """Tokenise (or decode) all samples once, ahead of the first epoch."""
        prepared: list[Prepared] = []
        for start in range(0, len(samples), PREPARE_AT_ONCE):
            prepared += split.prepare(samples[start : start + PREPARE_AT_ONCE])
        return cls(split, prepared, lengths_of(prepared))

    def loaded(self, batches: Sequence[Indices]) -> Iterator[tuple[Indices, dict[str, torch.Tensor]]]:
        """Each batch's members with their padded tensors, in the order given."""
        for members in batches:
            yield members, self.split.collate([self.prepared[place] for place in members])


Source = StoredRows | RawInputs


def logits_of(split: SplitModel, cut: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The head's logits (B, C) from stored rows, or the whole model's from raw inputs."""
    if "rows" in batch:
        return split.head_from(cut)(widened(batch), batch["lengths"])
    return split.full(batch)
