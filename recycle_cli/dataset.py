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
from recycle_cli.settings import CorpusSettings
from recycle_cli.store import Store
from recycle_cli.trunk.stream import windows

Item = dict[str, Any]

LOOKED_UP_AT_ONCE = 8192
"""Records that are looked up together."""


class Activations(Dataset[Item]):
    """The rows that a store holds of a corpus's records at one cut, a record an item, in the corpus's order.

    Records are found in the store by their content, so that an item cannot have the rows of another. An item has the
    record's `id`, its `label` as it stands in the corpus (None if it has none), and `rows` (L, *shape) in float32.
    `collate` pads items to a batch. Ids, labels and places in the store are kept in memory; rows are read as items
    are asked for.

    Raises MissingError if the store lacks a record, UsageError for a cut that it does not have, and DataError for a
    corpus that cannot be read.
    """

    def __init__(self, corpus: CorpusSettings, store: Store | str, cut: str | None = None) -> None:
        store = Store.open(store) if isinstance(store, str) else store
        held = tuple(store.recipe.cuts)
        if cut is None and len(held) == 1:
            cut = held[0]
        if cut not in held:
            asked = "choose one" if cut is None else f"not {cut}"
            raise UsageError(f"{store.path} holds the cuts {', '.join(held)}; {asked}")
        examples = Corpus(corpus, form=FORMS[store.recipe.modality])
        self.ids: list[str] = []
        self.labels: list[Any] = []
        found = windows(self._noted(examples), LOOKED_UP_AT_ONCE, store.lookup)
        positions = np.concatenate([window.positions for window in found])
        absent = np.flatnonzero(positions < 0)
        if len(absent):
            raise MissingError(
                f"{store.path} lacks {len(absent):,} of {len(self.ids):,} records, the first {self.ids[absent[0]]}; "
                "run `recycle precompute` over this corpus"
            )
        self._rows = StoredRows.of(store, cut, positions)

    def _noted(self, examples: Iterable[Example]) -> Iterator[Sample]:
        """The samples of the examples, whose ids and labels are kept."""
        for example in examples:
            self.ids.append(example.id)
            self.labels.append(example.labels or example.label)
            yield example.sample

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> Item:
        return self.__getitems__([range(len(self))[place]])[0]

    def __getitems__(self, places: Sequence[int]) -> list[Item]:
        """The items at these places, read at once; a DataLoader asks for a batch in this way."""
        batch = self._rows.load(np.asarray(places, dtype=np.int64))
        rows, lengths = widened(batch), batch["lengths"].tolist()
        return [
            {"id": self.ids[place], "label": self.labels[place], "rows": own[:length]}
            for place, own, length in zip(places, rows, lengths, strict=True)
        ]

    @staticmethod
    def collate(items: Sequence[Item]) -> Item:
        """A batch: `rows` (B, L, *shape) padded with zeros, `lengths` (B,), and lists of the ids and the labels."""
        rows = [item["rows"] for item in items]
        return {
            "id": [item["id"] for item in items],
            "label": [item["label"] for item in items],
            "rows": pad_sequence(rows, batch_first=True),
            "lengths": torch.tensor([len(own) for own in rows]),
        }
