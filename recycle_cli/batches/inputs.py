"""Prepared inputs of samples: what training and evaluation read without a store."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recycle_cli.batches.sampler import Indices, Sampler
from recycle_cli.batches.source import INPUTS, Epoch, Tensors, planned
from recycle_cli.corpus import Views
from recycle_cli.keys import Sample
from recycle_cli.models import Prepared, Preprocessor


@dataclass(frozen=True)
class RawInputs:
    """Samples prepared once, ahead of the first epoch. `lengths`: rows of each (n,)."""

    preprocessor: Preprocessor
    prepared: Sequence[Prepared]
    lengths: Indices
    cuts = INPUTS
    restriction = ""

    @classmethod
    def of(cls, preprocessor: Preprocessor, samples: Sequence[Sample]) -> "RawInputs":
        """Prepare all samples."""
        prepared = preprocessor.prepare(samples)
        return cls(preprocessor, prepared, preprocessor.lengths(prepared))

    def epoch(self, sampler: Sampler, number: int) -> Epoch:
        """The batches of epoch `number` (from 0)."""
        return planned(sampler.batches(self.lengths, number), self._load)

    def _load(self, members: Indices) -> Tensors:
        return self.preprocessor.collate([self.prepared[place] for place in members.tolist()])


@dataclass(frozen=True)
class Images:
    """Images decoded anew in each epoch, ahead of the model: all of them decoded would not fit the memory.

    `views`: functions that make the augmented views of an image, of which epoch e gets number e, then from the first on
    again. With as many views as epochs that is augmentation as it is done without a store.
    """

    preprocessor: Preprocessor
    samples: Sequence[Sample]
    views: Views = ()
    cuts = INPUTS
    restriction = ""

    @property
    def lengths(self) -> Indices:
        """One row an image (n,)."""
        return np.ones(len(self.samples), dtype=np.int64)

    def epoch(self, sampler: Sampler, number: int) -> Epoch:
        """The batches of epoch `number` (from 0)."""
        view = self.views[number % len(self.views)] if self.views else None

        def load(members: Indices) -> Tensors:
            samples = [self.samples[place] for place in members.tolist()]
            prepared = self.preprocessor.prepare(samples if view is None else list(map(view, samples)))
            return self.preprocessor.collate(prepared)

        return planned(sampler.batches(self.lengths, number), load)


def inputs_source(preprocessor: Preprocessor, samples: Sequence[Sample], views: Views = ()) -> RawInputs | Images:
    """How to read samples without a store. Those that are large once prepared are prepared anew in each epoch."""
    if preprocessor.row_cost > 1:
        return Images(preprocessor, samples, views)
    return RawInputs.of(preprocessor, samples)
