"""Bench trainings whose layers freeze, in place and with their rows kept, beside full, shorter and static ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from recycle_cli.batches import RowSource, StoredRows
from recycle_cli.bench.epoch import slice_for
from recycle_cli.bench.layout import FREEZING, PHASES
from recycle_cli.bench.subject import SILENT, WHOLE, Subject, discard
from recycle_cli.bench.timing import Run, Runner
from recycle_cli.settings import FreezeSettings, TrainingSettings
from recycle_cli.training import Destination, Setup, new_trainer, train

HELD_OUT = 5
"""One sample of so many is left to evaluate on."""


def runners(subject: Subject) -> dict[str, Runner]:
    """Runners of whole trainings, each of which begins with the pretrained weights."""
    settings = subject.settings
    own = FreezeSettings(settings.rule, cache="always", dtype=settings.dtype)
    whole = TrainingSettings(epochs=settings.epochs, batch_size=settings.batch_size, seed=settings.seed)
    of = {
        "full": (FreezeSettings(), WHOLE),
        "in_place": (FreezeSettings(settings.rule, cache="never"), WHOLE),
        "kept": (own, WHOLE),
        "static": (FreezeSettings(), settings.cuts[0]),
        "shorter": (FreezeSettings(), WHOLE),
    }
    assert tuple(of) == FREEZING
    spent = _Spent()
    return {
        f"freezing.{name}": partial(_run, subject, name, cut, about, whole, spent) for name, (about, cut) in of.items()
    }


@dataclass
class _Spent:
    """Seconds an epoch of each variant, as it was measured last."""

    seconds: dict[str, float] = field(default_factory=dict)

    def epochs(self, wanted: int) -> int:
        """How many epochs of full fine-tuning take no longer than the training whose rows are kept."""
        share = self.seconds.get("kept", 1.0) / self.seconds.get("full", 1.0)
        return max(1, min(wanted, int(wanted * share)))


def _run(
    subject: Subject,
    name: str,
    cut: str,
    about: FreezeSettings,
    settings: TrainingSettings,
    spent: _Spent,
    repetition: int,
) -> Run:
    epochs = spent.epochs(settings.epochs) if name == "shorter" else settings.epochs
    settings = replace(settings, epochs=epochs, freezing=about)
    network = subject.load()
    stored = cut != WHOLE
    halves = subject.split((cut,), network) if stored else subject.whole(network)
    cut = halves.cuts[0]
    halves.freeze(cut)
    setup = Setup(subject.named, network.loaded, halves, cut, subject.store if stored else None, network=network)
    members = slice_for(subject, repetition)
    held_out = np.arange(len(members)) % HELD_OUT == 0
    places = members[~held_out], members[held_out]
    sources: list[RowSource] = [
        StoredRows.of(subject.store, cut, subject.positions[some]) if stored else subject.inputs(halves, some)
        for some in places
    ]
    folder = subject.folder()
    data = subject.data.take(places[0]), subject.data.take(places[1])
    trainer = new_trainer(setup, settings, subject.task, data, Destination(folder))
    train([trainer], sources[0], sources[1], SILENT)
    discard(folder)
    state = trainer.state
    seconds = sum(state.epoch_seconds)
    spent.seconds[name] = seconds / settings.epochs
    phases = {f"{one}_seconds": sum(epoch["phases"].get(one, 0.0) for epoch in state.epochs) for one in PHASES}
    figures: Mapping[str, float] = {
        **phases,
        "evaluation_loss": state.epochs[-1]["metrics"]["loss"],
        "epochs": float(settings.epochs),
    }
    # A shorter training learns from fewer samples, and is set against the others by its seconds.
    return Run(seconds, settings.epochs * len(places[0]), figures=figures)
