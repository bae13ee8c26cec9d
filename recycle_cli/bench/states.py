"""Heads that read several states, beside the heads of the cuts: a ladder over every second, a pooled head over all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from recycle_cli.batches import Indices, source_at
from recycle_cli.bench.subject import SILENT, Subject, discard
from recycle_cli.bench.timing import Clock, Run, Unavailable
from recycle_cli.errors import UsageError
from recycle_cli.models.eval_mode import freeze
from recycle_cli.models.pooling import USUAL_POOLINGS
from recycle_cli.settings import HeadLayerSettings, TaskSettings, TrainingSettings
from recycle_cli.store import Store
from recycle_cli.training import Destination, Setup, is_solved, new_trainer, solve, train

STATES = {"ladder": "every:2", "pooled": "every"}
"""The cuts that each kind of head reads."""


@dataclass(frozen=True)
class States:
    """Heads of one kind over the states of a subject's model, with the store that they train from.

    fill_seconds  the time that filling the store took
    """

    subject: Subject
    kind: str
    setup: Setup
    store: Store
    fill_seconds: float

    @classmethod
    def of(cls, subject: Subject, kind: str) -> "States | Unavailable":
        """Fill a store of the states; Unavailable if the task or the model has no such head."""
        if kind == "pooled" and subject.task.layer(()).per_row:
            return Unavailable("a pooled head has one output a sample")
        network = subject.load()
        poolings = USUAL_POOLINGS[subject.named.modality] if kind == "pooled" else ()
        try:
            halves = network.stored((STATES[kind],), subject.settings.dtype, poolings)
        except UsageError as error:
            return Unavailable(str(error))
        freeze(halves.model, halves.model.parameters(), halves.model.modules())
        halves.model.to(subject.device)
        clock = Clock(subject.device)
        with clock.running():
            store, _ = subject.filled(subject.folder() / "acts.zarr", subject.records().samples(), halves)
        setup = Setup(subject.named, network.loaded, halves, ",".join(halves.cuts), store)
        made = cls(subject, kind, setup, store, clock.seconds)
        try:
            made.epoch_seconds(made.everything[: 2 * subject.settings.batch_size])
        except UsageError as error:
            return Unavailable(str(error))
        return made

    @property
    def everything(self) -> Indices:
        """All samples."""
        return self.positions.argsort(kind="stable")

    @property
    def positions(self) -> Indices:
        """Positions of the records in the store."""
        return self.store.lookup(self.subject.data.keys, self.subject.data.digests)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a sample at all cuts."""
        return sum(self.store.row_bytes(cut) for cut in self.setup.cuts)

    def runs(self, members: Indices, apart: Sequence[int] = (1,)) -> Run:
        """Time an epoch of so many heads together, one group after another; a sample counts once for each head."""
        seconds = sum(self.epoch_seconds(members, heads) for heads in apart)
        return Run(seconds, sum(apart) * len(members))

    def epoch_seconds(self, members: Indices, heads: int = 1) -> float:
        """Train heads for one epoch or, if they are linear, solve them; return its seconds as training counts them."""
        subject, layers = self.subject, HeadLayerSettings(self.kind)  # type: ignore[arg-type]
        folders, data = [subject.folder() for _ in range(heads)], subject.data.take(members)
        trainers = []
        for seed, folder in enumerate(folders):
            # Heads that differ in nothing but their names would be solved once.
            size = subject.settings.batch_size
            settings = TrainingSettings(1, size, seed=seed, task=_of(layers, 1.0 + seed))
            trainers.append(new_trainer(self.setup, settings, subject.task, (data, None), Destination(folder)))
        source = source_at(self.store, self.setup.cuts, [self.positions[members]], None)
        if is_solved(subject.task, trainers[0].settings):
            solve(trainers, source, None, SILENT)
        else:
            for trainer in trainers:
                trainer.head.settle(source, trainer.sampler)
            train(trainers, source, None, SILENT)
        for folder in folders:
            discard(folder)
        return trainers[0].state.epoch_seconds[0]


def _of(layers: HeadLayerSettings, l2: float) -> TaskSettings:
    """Settings with these layers; a head that is solved has this lambda."""
    if layers.kind != "pooled":
        return TaskSettings(layers=layers)
    return TaskSettings(layers=replace(layers, pooled=replace(layers.pooled, l2=l2)))
