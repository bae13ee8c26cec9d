"""Load what is served: RUNs and models, each with the first store that fits it; RUNs of one store share a trunk."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recycle_cli.disk import expanded
from recycle_cli.errors import MismatchError, UsageError
from recycle_cli.models import STATE_0, NamedModel
from recycle_cli.reports import say
from recycle_cli.runs import RunInfo, is_finished, is_run, read_info
from recycle_cli.scorer import RowsHead, Scorer, open_embedder, open_scorer
from recycle_cli.serve.group import Group
from recycle_cli.serve.jobs import Memory
from recycle_cli.serve.keeping import Keeping
from recycle_cli.serve.records import Reading
from recycle_cli.serve.service import ROWS, Served
from recycle_cli.settings import ModelSettings, PredictSettings, ServeSettings
from recycle_cli.store import UNKNOWN, Store, remove_leftovers
from recycle_cli.trunk import origins_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


@dataclass(frozen=True)
class Named:
    """A RUN's folder, or the name of a model, and the name that requests give it."""

    name: str
    path: str

    @property
    def info(self) -> RunInfo | None:
        """What the RUN says of itself; None for a model without a RUN."""
        folder = Path(expanded(self.path))
        return read_info(folder) if is_finished(folder) or (folder.exists() and is_run(folder)) else None


def named(words: Sequence[str]) -> list[Named]:
    """What is to be served, from words such as `runs/mood` and `mood=runs/latest`. Raises UsageError for a name that is
    given twice."""
    found: list[Named] = []
    for word in words:
        name, sign, path = word.partition("=")
        if not sign or Path(expanded(word)).exists():
            folder = Path(expanded(word))
            name, path = folder.resolve().name if folder.exists() else word, word
        if not _NAME.fullmatch(name):
            raise UsageError(f"{word}: {name!r} can be no name in an address; give it another, as NAME={path}")
        if name in [one.name for one in found]:
            raise UsageError(f"{word}: two are called {name}; give one another name, as NAME={path}")
        found.append(Named(name, path))
    return found


@dataclass(frozen=True)
class Opening:
    """How models are opened: what they have in common, the stores, and the weights that are in memory."""

    model: ModelSettings
    settings: ServeSettings
    stores: Sequence[Store]
    loaded: dict[tuple[Any, ...], list[torch.Tensor]] = field(default_factory=dict)

    def served(self, words: Sequence[str]) -> list[Served]:
        """Load all that the words name, in this order. Those that read one store, or share a trunk, are one group.

        Raises UsageError for names that cannot be, and for a store that nothing reads, and whatever loading raises.
        """
        every = named(words)
        if self.settings.write_back and not self.stores:
            raise UsageError("--write-back needs a --store to write to")
        if self.settings.max_disk is not None and not self.settings.write_back:
            raise UsageError("--max-disk: nothing is written without --write-back; add it, or leave the option out")
        opened = [(one, self._fitting(one)) for one in every]
        for store in self.stores:
            if not any(scorer.store is store for _, scorer in opened):
                raise UsageError(f"--store {store.path}: nothing that is served reads it; leave it out")
        groups: dict[str, list[tuple[Named, Scorer]]] = {}
        for one, scorer in opened:
            key = scorer.first.trunk or one.name if scorer.store is None else scorer.store.path
            groups.setdefault(key, []).append((one, scorer))
        found = {one.name: one for some in groups.values() for one in self._group(some)}
        return [found[one.name] for one in every]

    def _fitting(self, one: Named) -> Scorer:
        """A RUN with the first store that fits it, the one that it was trained from before the others."""
        info, refusals = one.info, []
        for store in sorted(self.stores, key=lambda store: info is None or store.fingerprint != info.fingerprint):
            try:
                return self._opened(one, store)
            except MismatchError as error:
                refusals.append(error)
        if refusals and len(self.stores) == 1:
            raise refusals[0]
        if refusals:
            say(f"{one.name}: no --store holds anything for it, so that all is computed ({refusals[0]})")
        return self._opened(one, None)

    def _opened(self, one: Named, store: Store | None) -> Scorer:
        info, model = one.info, replace(self.model, name=one.path)
        several = info is not None and info.multi_label
        asked = PredictSettings(
            batch_tokens=self.settings.batch_tokens,
            threshold=self.settings.threshold if several else PredictSettings.threshold,
            parity_check=self.settings.parity_check,
            write_back=self.settings.write_back and store is not None,
        )
        if info is None:
            return open_embedder(store, NamedModel(model), asked).called(one.name)
        return open_scorer(one.path, store, model, asked).called(one.name)

    def _group(self, some: Sequence[tuple[Named, Scorer]]) -> list[Served]:
        """RUNs of one store, or one without, with scorers of their own for hits and for misses."""
        misses = some[0][1].joined([scorer for _, scorer in some[1:]])
        hits = None
        if misses.store is not None:
            again = [
                replace(self, settings=replace(self.settings, write_back=False))._opened(one, misses.store)
                for one, _ in some
            ]
            hits = again[0].joined(again[1:])
        for scorer in (misses, hits):
            for run in [] if scorer is None else scorer.runs.values():
                self._share(run.head.split.model)
        runs = dict(misses.runs)
        large = [name for scorer in (misses, hits) if scorer is not None for name in _with_rows(scorer)]
        group = Group(hits, misses, Memory(self.settings.memory), say, large)
        if self.settings.write_back and misses.store is not None:
            self._write_back(group, misses.store.path)
        most = self.settings.limits.max_pixels
        return [Served(name, group, run, Reading(run, group.finding, most)) for name, run in runs.items()]

    def _write_back(self, group: Group, path: str) -> None:
        """Let a group keep what it computes. Raises UsageError for a store that is larger than it may be."""
        store, most = Store.open(path), self.settings.max_disk
        if store.place.is_local:
            remove_leftovers(store)
        elif most is not None:
            raise UsageError(
                f"--max-disk: {path} is no local folder, and segments are removed there alone; leave it out"
            )
        used = store.place.bytes_used()
        if most is not None and used > most:
            raise UsageError(f"--max-disk {most}: {path} has {used:,} bytes already; give more, or serve another store")
        origins = [origins_of(run.task.samples_as(run.info.task)) for run in group.misses.runs.values()]
        group.keeping = Keeping(
            store,
            frozenset({UNKNOWN}) if self.settings.tenants else frozenset().union(*origins),
            self.settings.segment_bytes,
            self.settings.seal_seconds,
            most,
            group.sealed,
            group.say,
        )

    def _share(self, model: nn.Module) -> None:
        """Let a model have its weights where another has the same numbers, so that they are in memory once."""
        for tensor in [*model.parameters(), *model.buffers()]:
            alike = self.loaded.setdefault(_likeness(tensor), [])
            same = next((one for one in alike if torch.equal(one, tensor)), None)
            if same is None:
                alike.append(tensor)
            else:
                tensor.data = same.data


def _likeness(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What two tensors of the same numbers have in common, quickly found."""
    first = tensor.detach().flatten()[:4]
    return tensor.shape, tensor.dtype, tensor.device, tuple(first.tolist())


def _with_rows(scorer: Scorer) -> list[str]:
    """Let a scorer of texts give rows as well; returns the names by which they are asked for."""
    found = {}
    for name, run in scorer.runs.items():
        split, reuses = run.head.split, run.model.reused is not None
        if split.recipe.modality == "text" and not split.poolings and run.info.cut in split.cuts and not reuses:
            found[name + ROWS] = replace(run, head=RowsHead(split, run.info.cut, run.head.reads, {}))
    scorer.runs.update(
        {name: run for name, run in found.items() if run.info.cut != STATE_0 or scorer.store is not None}
    )
    return list(found)


def check_budget(served: Sequence[Served], batch_tokens: int) -> None:
    """Raise UsageError if one sample of a RUN could be larger than a batch may be."""
    for one in served:
        inputs = one.group.misses.preprocessor
        most = getattr(inputs, "max_length", 1) if inputs.modality == "text" else 1
        if most * inputs.row_cost > batch_tokens:
            raise UsageError(
                f"--batch-tokens {batch_tokens}: one text of {one.name} may have {most} tokens; give at least "
                f"{most * inputs.row_cost}"
            )
