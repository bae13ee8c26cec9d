"""The forecast of heads that read several states, beside that of a cut: bytes, time, and what each saves."""

from dataclasses import dataclass

from recycle_cli.bench.states import STATES, States
from recycle_cli.bench.subject import Subject
from recycle_cli.bench.timing import Unavailable
from recycle_cli.plan.cost import pays_back_in
from recycle_cli.plan.verdict import verdict


@dataclass(frozen=True)
class HeadPlan:
    """The forecast of one kind of head for as many epochs as were asked for. Times are in seconds.

    `epoch_seconds` of a pooled head, which is solved, are those of solving it, once. `payback_epoch`: the first epoch
    after which filling a store and training from it took less time than full fine-tuning; None for never.
    """

    head: str
    cuts: str
    bytes: int
    fill_seconds: float
    epoch_seconds: float
    total_seconds: float
    payback_epoch: int | None
    cache: bool
    verdict: str


@dataclass(frozen=True)
class Scale:
    """What the whole corpus is beside the samples that were tried. `records` are all, `unique` the different ones."""

    records: int
    unique: int
    row_count: float
    tokens_share: float
    epochs: int
    full_epoch_seconds: float
    free: int


def try_states(subject: Subject, scale: Scale) -> list[HeadPlan]:
    """Fill a store of each kind and train from it; the figures of the whole corpus are in proportion."""
    found = []
    for kind in STATES:
        states = States.of(subject, kind)
        if not isinstance(states, Unavailable):
            found.append(_plan(states, scale))
    return found


def _plan(states: States, scale: Scale) -> HeadPlan:
    tried, pooled = len(states.subject.data), states.kind == "pooled"
    rows = scale.unique * len(states.setup.split.poolings) if pooled else scale.row_count
    work = scale.unique / tried * scale.tokens_share
    fill = states.fill_seconds * work
    epoch = states.epoch_seconds(states.everything) * scale.records / tried * (1.0 if pooled else scale.tokens_share)
    size = round(rows * states.row_bytes)
    return forecast(states.kind, states.setup.cut, size, fill, epoch, scale)


def forecast(kind: str, cuts: str, size: int, fill: float, epoch: float, scale: Scale) -> HeadPlan:
    """The plan of a head by the bytes and the seconds of its store, and the seconds of its epoch."""
    once = kind == "pooled"
    epochs = 1 if once else scale.epochs
    spent = fill + epoch if once else fill
    pays = pays_back_in(spent, 0.0 if once else epoch, scale.full_epoch_seconds)
    cache, words = verdict(pays, scale.epochs, size, scale.free)
    return HeadPlan(kind, cuts, size, fill, epoch, fill + epochs * epoch, pays, cache, words)
