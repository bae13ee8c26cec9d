"""Linear heads on pooled vectors, solved: the features are read once, and the optimum of each head is computed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recycle_cli.batches import InOrder, RowSource
from recycle_cli.errors import UsageError
from recycle_cli.models.standardising import standardise_by
from recycle_cli.reports import Bar, human
from recycle_cli.runtime.memory import free_memory
from recycle_cli.runtime.signals import deferred_signals
from recycle_cli.tasks import is_better
from recycle_cli.training.lasso import without_idle_states
from recycle_cli.training.lbfgs import Directions, Heads, Loss, minimise
from recycle_cli.training.probe_head import ProbeHead
from recycle_cli.training.trainer import Trainer

MOST_DIRECTIONS = 256
"""Directions of the features that the steps to the optimum take into account."""

L2_EACH = 1e-4
"""The usual lambda, for each number that a head reads: many numbers that say the same share its weight."""

STEP = 10**0.5
"""What lambda is divided or multiplied by as long as that is better on the evaluation's data."""

MOST_STEPS = 4
"""Steps in one direction at most."""

ROUGH = 1e-2
"""The tolerance while lambda is chosen."""


@dataclass(frozen=True)
class Data:
    """Standardised features of the training (n, F), their directions, and those of the evaluation (m, F), if any."""

    train: Tensor
    directions: Directions
    evaluation: Tensor | None


@dataclass
class Found:
    """What is known of one head.

    l2             its lambda
    weights, bias  (F, C) and (C,): at first zeros, later the optimum
    """

    trainer: Trainer
    loss: Loss
    l2: float
    weights: Tensor
    bias: Tensor


def solve(trainers: Sequence[Trainer], source: RowSource, evaluation: RowSource | None, progress: Bar) -> None:
    """Compute the optimum of heads that read the same features, which are read once, and leave it in place.

    Raises UsageError if the features do not fit the memory.
    """
    for trainer in trainers:
        trainer.load()
    started = time.perf_counter()
    with deferred_signals() as signals:

        def safe() -> None:
            signals.stop_here("interrupted; the same command with --resume solves the heads again")

        data = _read(trainers, source, evaluation)
        read = time.perf_counter()
        progress.tell(f"read {len(data.train):,} samples of {data.train.shape[1]:,} numbers in {_seconds(started)}")
        with torch.no_grad():
            alike = _alike(trainers)
            heads = _chosen([first for first, *_ in alike], data, safe)
            _minimised(heads, data, safe=safe)
            for one in heads:
                _leave_out_states(one, data, safe)
        seconds = time.perf_counter() - started
        for one, same in zip(heads, alike, strict=True):
            for trainer in same:
                _leave(replace(one, trainer=trainer), data, seconds)
                _tell(trainer, progress)
    count = f"{len(trainers)} heads" if len(trainers) > 1 else "one head"
    progress.tell(f"solved {count} in {_seconds(read)}")


def _alike(trainers: Sequence[Trainer]) -> list[list[Trainer]]:
    """The heads by what they are to solve: those that differ in their names alone are solved once."""
    found: dict[str, list[Trainer]] = {}
    for one in trainers:
        evaluation = None if one.evaluation is None else one.evaluation.digest
        asked = (one.data.digest, evaluation, one.metric, one.task.identity(), one.settings.layers.pooled)
        found.setdefault(repr(asked), []).append(one)
    return list(found.values())


def _seconds(since: float) -> str:
    return human("seconds", time.perf_counter() - since)


def _read(trainers: Sequence[Trainer], source: RowSource, evaluation: RowSource | None) -> Data:
    """The features of all samples, standardised by those of the training, as every head does from now on."""
    head = trainers[0].head
    assert isinstance(head, ProbeHead)
    batch_size, width = max(256, trainers[0].settings.batch_size), head.network.shape.inputs
    count = sum(len(one.lengths) for one in (source, evaluation) if one is not None)
    if 2 * 4 * count * width > free_memory():
        raise UsageError(
            f"--head pooled: {count:,} samples of {width:,} numbers take more than the free memory; name fewer cuts or "
            "vectors (--cut, --pool), or add --pooled-hidden, which trains in epochs"
        )

    def gathered(one: RowSource) -> Tensor:
        features = torch.empty(len(one.lengths), width, device=trainers[0].device)
        with trainers[0].autocast():
            for members, own in head.each_features(one, InOrder(batch_size)):
                features[torch.from_numpy(members).to(features.device)] = own.clone()
        return features

    with torch.no_grad():
        train = gathered(source)
        mean, deviation = train.mean(0, dtype=torch.float64), _deviation(train)
        for trainer in trainers:
            assert isinstance(trainer.head, ProbeHead)
            standardise_by(trainer.head.network, mean.float(), deviation)
        judged = None if evaluation is None else gathered(evaluation)
        for features in (train, *(() if judged is None else (judged,))):
            features.sub_(head.network.mean).div_(head.network.deviation)
        return Data(train, Directions.of(train, MOST_DIRECTIONS), judged)


def _deviation(features: Tensor) -> Tensor:
    """The standard deviation of each number, without a copy of them all."""
    return torch.cat([part.double().std(0, correction=0).float() for part in features.split(512, dim=1)])


def _chosen(trainers: Sequence[Trainer], data: Data, safe: Callable[[], None]) -> list[Found]:
    """The heads with their lambdas: as asked for, or the one whose metric on the evaluation is best, or the usual."""
    width, found = data.train.shape[1], []
    for trainer in trainers:
        asked, outputs = trainer.settings.layers.pooled.l2, len(trainer.head.weights["output.bias"])
        weights, bias = data.train.new_zeros(width, outputs), data.train.new_zeros(outputs)
        l2 = L2_EACH * width if asked is None else asked
        found.append(Found(trainer, trainer.whole_loss(), l2, weights, bias))
    if data.evaluation is None:
        return found
    searches = [Search(one) for one in found if one.trainer.settings.layers.pooled.l2 is None]
    while going := [one for one in searches if one.goes_on]:
        tried = [one.next() for one in going]
        _minimised(tried, data, tolerance=ROUGH, safe=safe)
        for one, now in zip(going, tried, strict=True):
            one.judge(now, now.trainer.figures_of(data.evaluation @ now.weights + now.bias))
    return found


@dataclass
class Search:
    """The search for the lambda of one head, `best`: from the usual one down while that is better, or else up.

    factor  of the next step
    left    steps that may still be taken in this direction
    """

    best: Found
    figures: dict[str, float] | None = None
    factor: float = 1 / STEP
    left: int = MOST_STEPS

    @property
    def goes_on(self) -> bool:
        """Whether there is another lambda to try."""
        return self.left > 0

    def next(self) -> Found:
        """The next to try, which begins where the best has got to."""
        return self.best if self.figures is None else replace(self.best, l2=self.best.l2 * self.factor)

    def judge(self, tried: Found, figures: dict[str, float]) -> None:
        """Keep what was tried if it is better; else turn around if no step was, or end."""
        first = self.figures is None
        if is_better(tried.trainer.metric, figures, self.figures):
            self.figures = figures
            self.best.l2, self.best.weights, self.best.bias = tried.l2, tried.weights, tried.bias
            self.left -= not first
        elif self.left == MOST_STEPS and self.factor < 1:
            self.factor = STEP
        else:
            self.left = 0


def _minimised(found: Sequence[Found], data: Data, *, safe: Callable[[], None], tolerance: float | None = None) -> None:
    """Put the heads' weights and biases at their optimum, together."""
    sizes = torch.tensor([len(one.bias) for one in found])
    owner = torch.arange(len(found)).repeat_interleave(sizes).to(data.train.device)
    l2 = torch.tensor([one.l2 for one in found], dtype=data.train.dtype, device=data.train.device)[owner]
    weights, bias = torch.cat([one.weights for one in found], dim=1), torch.cat([one.bias for one in found])
    heads = Heads([one.loss for one in found], owner, l2, weights, bias)
    asked = {} if tolerance is None else {"tolerance": tolerance}
    minimise(data.train, heads, data.directions, safe=safe, **asked)
    parts = zip(heads.weights.split(sizes.tolist(), dim=1), heads.bias.split(sizes.tolist()), strict=True)
    for one, (own, shift) in zip(found, parts, strict=True):
        one.weights, one.bias = own.clone(), shift.clone()


def _leave_out_states(one: Found, data: Data, safe: Callable[[], None]) -> None:
    """Leave out the states that a head does not need, if it is asked to."""
    if share := one.trainer.settings.layers.pooled.lasso:
        assert isinstance(one.trainer.head, ProbeHead)
        sizes = one.trainer.head.network.shape.sizes
        begun = (one.weights, one.bias)
        one.weights, one.bias = without_idle_states(data.train, one.loss, begun, one.l2, share, sizes, safe)


def _leave(one: Found, data: Data, seconds: float) -> None:
    """Put a head's weights in place, and note what it has learnt."""
    assert isinstance(one.trainer.head, ProbeHead)
    layer = one.trainer.head.network.output
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(one.weights.T)
        layer.bias.copy_(one.bias)
        loss = float(one.loss(data.train @ one.weights + one.bias))
        figures = None
        if data.evaluation is not None:
            figures = one.trainer.figures_of(data.evaluation @ one.weights + one.bias)
    one.trainer.l2 = one.l2
    one.trainer.end_solving(loss, seconds, figures)


def _tell(trainer: Trainer, progress: Bar) -> None:
    assert trainer.l2 is not None
    loss = trainer.state.epochs[-1]["epoch_loss"]
    parts = [f"train loss {human('loss', loss)}"]
    if trainer.state.best is not None:
        parts += [f"{trainer.metric} {human(trainer.metric, trainer.state.best[trainer.metric])}"]
    name = trainer.name and f"{trainer.name}: "
    progress.tell(f"{name}solved with lambda {trainer.l2:.3g}: {'; '.join(parts)}")
