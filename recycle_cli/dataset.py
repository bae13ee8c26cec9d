"""Stored activations as a dataset of PyTorch, for a training loop of one's own."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from recycle_cli.batches import StoredRows, widened
from recycle_cli.corpus import FORMS, Corpus, Example
from recycle_cli.errors import MissingError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.models import NamedModel
from recycle_cli.settings import CorpusSettings, ModelSettings, SampleSettings, words_of
from recycle_cli.store import Store
from recycle_cli.tasks import read_samples
from recycle_cli.trunk.stream import windows

Item = dict[str, Any]

LOOKED_UP_AT_ONCE = 8192
"""Samples that are looked up together."""


class Activations(Dataset[Item]):
    """The rows that a store holds of a corpus's samples at one cut, a sample an item, in the corpus's order.

    A record is one sample, unless `samples` names a task that takes several of it, as `precompute --task` does: the two
    texts of a pair, the windows of a long text. Samples are found in the store by their content, so that an item cannot
    have the rows of another. An item has the record's `id`, its `label` as it stands in the corpus (None if it has
    none), the number of the sample in the record as `part`, the first character of a window as `start`, and `rows`
    (L, *shape) in float32. `collate` pads items to a batch. All but the rows is kept in memory; rows are read as items
    are asked for.

    Raises MissingError if the store lacks a sample, UsageError for a cut that it does not have, for a task of other
    inputs and an option that it does not take, and DataError for a corpus that cannot be read.
    """

    def __init__(
        self,
        corpus: CorpusSettings,
        store: Store | str,
        cut: str | None = None,
        samples: SampleSettings = SampleSettings(),  # noqa: B008 - frozen
    ) -> None:
        store = Store.open(store) if isinstance(store, str) else store
        held = tuple(store.recipe.cuts)
        if cut is None and len(held) == 1:
            cut = held[0]
        if cut not in held:
            asked = "choose one" if cut is None else f"not {cut}"
            raise UsageError(f"{store.path} holds the cuts {', '.join(held)}; {asked}")
        self.ids: list[str] = []
        self.labels: list[Any] = []
        self.parts: list[int] = []
        self.starts: list[int] = []
        found = windows(self._noted(_examples(corpus, store, samples)), LOOKED_UP_AT_ONCE, store.lookup)
        positions = np.concatenate([window.positions for window in found])
        absent = np.flatnonzero(positions < 0)
        if len(absent):
            raise MissingError(
                f"{store.path} lacks {len(absent):,} of {len(self.ids):,} samples, the first of record "
                f"{self.ids[absent[0]]}; run {_precompute(samples)} over this corpus"
            )
        self._rows = StoredRows.of(store, cut, positions)

    def _noted(self, examples: Iterable[Example]) -> Iterator[Sample]:
        """The samples of the examples, of which all is kept that an item has beside its rows."""
        for example in examples:
            for part, sample in enumerate(example.samples):
                self.ids.append(example.id)
                self.labels.append(example.labels or example.label)
                self.parts.append(part)
                self.starts.append(example.starts[part] if example.starts else 0)
                yield sample

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> Item:
        return self.__getitems__([range(len(self))[place]])[0]

    def __getitems__(self, places: Sequence[int]) -> list[Item]:
        """The items at these places, read at once; a DataLoader asks for a batch in this way."""
        batch = self._rows.load(np.asarray(places, dtype=np.int64))
        rows, lengths = widened(batch), batch["lengths"].tolist()
        return [
            {**self._about(place), "rows": own[:length]}
            for place, own, length in zip(places, rows, lengths, strict=True)
        ]

    def _about(self, place: int) -> Item:
        """What an item has beside its rows."""
        return {
            "id": self.ids[place],
            "label": self.labels[place],
            "part": self.parts[place],
            "start": self.starts[place],
        }

    @staticmethod
    def collate(items: Sequence[Item]) -> Item:
        """A batch: `rows` (B, L, *shape) padded with zeros, `lengths` (B,), and lists of all else."""
        rows = [item["rows"] for item in items]
        return {
            **{name: [item[name] for item in items] for name in ("id", "label", "part", "start")},
            "rows": pad_sequence(rows, batch_first=True),
            "lengths": torch.tensor([len(own) for own in rows]),
        }


def _examples(corpus: CorpusSettings, store: Store, samples: SampleSettings) -> Corpus:
    """The corpus with the samples of a task, by the tokenizer of the store's model; of no task as its records are."""
    if samples == SampleSettings():
        return Corpus(corpus, form=FORMS[store.recipe.modality])
    model = NamedModel(ModelSettings()).found_again(store.provenance, store.recipe, named=False)
    return read_samples(corpus, samples, model)


def _precompute(samples: SampleSettings) -> str:
    """The command that makes these samples."""
    return f"`{' '.join(['recycle precompute', *words_of(samples)])}`"
