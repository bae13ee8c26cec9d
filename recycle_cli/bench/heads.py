"""Bench several heads trained from one read of the store, beside one run for each head in turn."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from recycle_cli.batches import Indices, StoredRows, stored_source
from recycle_cli.bench.epoch import slice_for, trainer_for
from recycle_cli.bench.layout import prefix
from recycle_cli.bench.states import STATES, States
from recycle_cli.bench.subject import SILENT, Subject, discard
from recycle_cli.bench.timing import WARM_UP, Run, Runner, Unavailable
from recycle_cli.settings.measuring import HEADS
from recycle_cli.training import Destination, Head, Setup, frozen, train


def runners(subject: Subject) -> dict[str, Runner | Unavailable]:
    """Runners that train the same heads together and apart, at each cut and over several states."""
    found: dict[str, Runner | Unavailable] = {}
    cuts = subject.settings.cuts
    for cut in cuts:
        group, setups = prefix("heads", cut, cuts), _setups(subject, cut)
        found[f"{group}.together"] = partial(_runs, subject, [setups])
        found[f"{group}.apart"] = partial(_runs, subject, [[one] for one in setups])
    for kind in STATES:
        states = States.of(subject, kind)
        for name, heads in (("together", [HEADS]), ("apart", [1] * HEADS)):
            found[f"heads.{kind}.{name}"] = (
                states if isinstance(states, Unavailable) else partial(_of_states, subject, states, heads)
            )
    return found


def _of_states(subject: Subject, states: States, heads: Sequence[int], repetition: int) -> Run:
    return states.runs(slice_for(subject, repetition), heads)


def _setups(subject: Subject, cut: str) -> list[Setup]:
    """Make a model for each head. All share one frozen trunk in memory."""
    return frozen(_setup(subject, cut) for _ in range(HEADS))


def _setup(subject: Subject, cut: str) -> Setup:
    network = subject.load()
    halves = subject.split((cut,), network)
    return Setup(subject.named, network.loaded, halves, halves.cuts[0], subject.store)


def _runs(subject: Subject, runs: Sequence[Sequence[Setup]], repetition: int) -> Run:
    """Time the runs one after another on the same batches. A sample counts once for each head."""
    members = _members(subject, runs[0][0].cut, repetition)
    seconds = sum(_epoch_seconds(subject, setups, members) for setups in runs)
    return Run(seconds, sum(map(len, runs)) * len(members))


def _members(subject: Subject, cut: str, repetition: int) -> Indices:
    """Members of a few batches; all samples if the store is read in windows, since a window decodes whole chunks."""
    if subject.store.prefers_windows(cut) and repetition != WARM_UP:
        return np.arange(len(subject.data))
    return slice_for(subject, repetition)


def _epoch_seconds(subject: Subject, setups: Sequence[Setup], members: Indices) -> float:
    """Train heads for one epoch in which each batch is read once; return its seconds as training counts them."""
    data, folders = subject.data.take(members), [subject.folder() for _ in setups]
    trainers = [
        trainer_for(subject, _head(setup), Destination(folder), data)
        for setup, folder in zip(setups, folders, strict=True)
    ]
    rows = StoredRows.of(subject.store, setups[0].cut, subject.positions[members])
    train(trainers, stored_source(rows, None), None, SILENT)
    for folder in folders:
        discard(folder)
    return trainers[0].state.epoch_seconds[0]


def _head(setup: Setup) -> Head:
    return Head(setup.split, setup.cut, (setup.cut,), dict(setup.split.head_parameters(setup.cut)))
