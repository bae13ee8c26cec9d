"""One type of transformers through the whole tool, compared with the plain model: exact, refused, or wrong."""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from recycle_cli.batches import StoredRows, widened
from recycle_cli.errors import RecycleError
from recycle_cli.keys import Sample, keys_of
from recycle_cli.models import NamedModel, Network, SplitModel, TaskLayer
from recycle_cli.models.hub import quiet
from recycle_cli.reports import Bar
from recycle_cli.settings import ImageSettings, ModelSettings, PrecomputeSettings
from recycle_cli.store import Store
from recycle_cli.training import Setup, prove_training
from recycle_cli.trunk import fill
from tests.models.all_types.checkpoints import (
    AUTO,
    MEAN,
    STD,
    has_types,
    images,
    pixels_of,
    save_checkpoint,
    texts,
    tokens_of,
)
from tests.models.all_types.plain import Inputs, alone, step
from tests.models.all_types.sizes import LABELS, LONGEST, SIDE

SHARES = ("25%", "50%", "75%", "100%")
BAR = 1e-4
"""Largest difference from the plain model, as a share of the largest logit, that is rounding."""

ROUNDING = 10
"""How many times further than the plain model's own rounding a step may be from the right one, if that is above BAR."""

VARIED = 1e-2
"""Least difference between the logits of samples, as a share of the largest, that says something about them."""

SAMPLES = 6
"""Samples of a quick check."""

LAYER = TaskLayer(labels=LABELS)

EXACT, REFUSED, UNBUILDABLE, WRONG = "exact", "refused", "unbuildable", "WRONG"


@dataclass(frozen=True)
class Outcome:
    """What became of a type. `cuts`: the shares that are offered; `error`: the largest of a comparison."""

    modality: str
    kind: str
    outcome: str
    reason: str = ""
    cuts: tuple[str, ...] = ()
    error: float = 0.0
    seconds: float = 0.0


class _Wrong(Exception):  # noqa: N818 - an outcome, not a failure of the check
    """The tool gives something else than the plain model."""


@dataclass
class _Subject:
    """A checkpoint with its samples and the right logits of each."""

    modality: str
    folder: Path
    settings: ModelSettings
    samples: list[Sample]
    inputs: list[Inputs]
    wanted: Tensor = field(default_factory=lambda: torch.empty(0))
    error: float = 0.0
    allowed: Callable[[], float] = lambda: BAR
    notes: list[str] = field(default_factory=list)

    def plain(self, folder: Path | None = None) -> Any:
        """The plain model, loaded by transformers alone."""
        with quiet():
            return getattr(transformers, AUTO[self.modality]).from_pretrained(folder or self.folder / "model")

    @property
    def batches(self) -> list[Inputs]:
        """The samples as a step takes them: texts one by one, unpadded; images at once, for BatchNorm's sake."""
        if self.modality == "text":
            return self.inputs
        return [{"pixel_values": torch.cat([one["pixel_values"] for one in self.inputs])}]

    def expect(self, found: Tensor, what: str, wanted: Tensor | None = None) -> None:
        """Note the error; raise _Wrong if it is none of rounding."""
        wanted = self.wanted if wanted is None else wanted
        error = float((found - wanted).abs().max() / wanted.abs().max())
        if not (error <= BAR or error <= self.allowed()):
            raise _Wrong(f"{what} is {error:.1e} off")
        self.error = max(self.error, error)


def check(modality: str, kind: str, *, quick: bool = False) -> Outcome:
    """Try a type, each cut of it and a step of training. Whatever is raised is part of the outcome.

    `quick`: with fewer samples, and without the proof that a training begins with.
    """
    began = time.perf_counter()
    with TemporaryDirectory() as place, torch.random.fork_rng(devices=[]):
        outcome = _checked(modality, kind, Path(place), quick=quick)
    reason = outcome.reason.replace(str(Path(place, "model")), "MODEL")
    return replace(outcome, reason=reason, seconds=round(time.perf_counter() - began, 1))


def _checked(modality: str, kind: str, folder: Path, *, quick: bool) -> Outcome:
    made = Outcome(modality, kind, EXACT)
    try:
        with quiet():
            save_checkpoint(modality, kind, folder / "model")
            subject = _subject(modality, folder, SAMPLES if quick else None)
    except Exception as error:  # noqa: BLE001 - transformers' own code may raise anything
        return replace(made, outcome=UNBUILDABLE, reason=_said(error))
    fails = ""
    try:
        subject.wanted = alone(subject.plain(), subject.inputs)
    except Exception as error:  # noqa: BLE001 - as above
        fails = f"the plain model fails ({_said(error)})"
    shares: tuple[str, ...] = ()
    try:
        network, halves, shares, refusals = _offered(subject)
        if fails:
            raise _Wrong(f"{fails}, and the tool does not refuse it")
        store = _compare(subject, halves, shares)
        if not quick:
            _prove(subject, network, halves, store)
        _train(subject, network, halves, store)
    except RecycleError as error:
        return replace(made, outcome=REFUSED, reason=_said(error))
    except _Wrong as error:
        return replace(made, outcome=WRONG, reason=_said(error), cuts=shares)
    except Exception as error:  # noqa: BLE001 - a traceback is an outcome, the worst
        return replace(made, outcome=WRONG, reason=f"traceback, {type(error).__name__}: {_said(error)}")
    return replace(made, reason="; ".join([*subject.notes, *refusals]), cuts=shares, error=subject.error)


def _subject(modality: str, folder: Path, most: int | None) -> _Subject:
    name = str(folder / "model")
    if modality == "text":
        config = transformers.AutoConfig.from_pretrained(name)
        samples = texts(config)[-(most or 0) :]
        inputs: list[Inputs] = [tokens_of(one, has_types(config)) for one in samples]
        return _Subject(modality, folder, ModelSettings(name, max_length=LONGEST, device="cpu"), samples, inputs)
    samples = images()[-(most or 0) :]
    own = ImageSettings(resize=(SIDE, SIDE), mean=MEAN, std=STD)
    settings = ModelSettings(name, images=own, device="cpu")
    return _Subject(modality, folder, settings, samples, [pixels_of(one) for one in samples])


def _offered(subject: _Subject) -> tuple[Network, SplitModel, tuple[str, ...], list[str]]:
    """The model in halves at the shares that may be cuts, those shares, and what is said of the others."""
    # A text model that is split at 0, too, tells all of its blocks.
    whole = ("0",) if subject.modality == "text" else ()
    network = NamedModel(subject.settings).open(LAYER)
    try:
        return network, network.split((*whole, *SHARES), "float32"), SHARES, []
    except RecycleError as error:
        refusals = {share: _refusal(subject, share) for share in SHARES}
        shares = tuple(share for share in SHARES if not refusals[share])
        if not shares:
            raise
        if not any(refusals.values()):
            raise _Wrong(f"each share is a cut, but not all together ({_said(error)})") from error
    network = NamedModel(subject.settings).open(LAYER)
    said = [f"{share} refused: {error}" for share, error in refusals.items() if error]
    return network, network.split((*whole, *shares), "float32"), shares, said


def _refusal(subject: _Subject, share: str) -> str:
    try:
        NamedModel(subject.settings).open(LAYER).split((share,), "float32")
    except RecycleError as error:
        return _said(error)
    return ""


def _compare(subject: _Subject, halves: SplitModel, shares: Sequence[str]) -> Store:
    """Every cut from the rows of a store, in one batch and each sample alone; and the whole model. Gives the store."""
    spread = float((subject.wanted.amax(0) - subject.wanted.amin(0)).max() / subject.wanted.abs().max())
    if not spread >= VARIED:
        raise _Wrong(f"the plain model's logits hardly vary ({spread:.1e}), so that nothing is proved")
    store = Store.create_or_open(str(subject.folder / "store"), halves.recipe, {})
    fill(store, subject.samples, halves, PrecomputeSettings(), Bar())
    halves.model.eval()
    with torch.no_grad():
        batch = halves.collate(halves.prepare(subject.samples))
        subject.expect(halves.full(batch), "the whole model on a batch")
        for cut in store.recipe.cuts:
            subject.expect(_head(halves, store, cut, subject.samples), f"the head from {cut} on a batch")
            one_by_one = [_head(halves, store, cut, [sample]) for sample in subject.samples]
            subject.expect(torch.cat(one_by_one), f"the head from {cut} on samples alone")
    return store


def _head(halves: SplitModel, store: Store, cut: str, samples: Sequence[Sample]) -> Tensor:
    """The head's logits from the store's rows of some samples, padded with zeros."""
    rows = StoredRows.of(store, cut, store.lookup(*keys_of(samples)))
    batch = rows.load(np.arange(len(samples)))
    return halves.head_from(cut)(widened(batch), batch["lengths"])


def _prove(subject: _Subject, network: Network, halves: SplitModel, store: Store) -> None:
    """What every training begins with, which may refuse the model."""
    cut = _trained_cut(store)
    halves.freeze(cut)
    setup = Setup(NamedModel(subject.settings), network.loaded, halves, cut, None)
    prove_training(setup, LAYER, subject.samples, subject.folder / "run")


def _trained_cut(store: Store) -> str:
    cuts = list(store.recipe.cuts)
    return cuts[(len(cuts) - 1) // 2]


def _train(subject: _Subject, network: Network, halves: SplitModel, store: Store) -> None:
    """A step from the store against the frozen trunk in place; the RUN is saved, and loaded as anybody would."""
    cut = _trained_cut(store)
    halves.freeze(cut)
    labels = torch.arange(len(subject.samples)) % len(LABELS)
    plain, entrance = subject.plain(), _entrance(halves, cut)
    right = None
    if entrance in dict(plain.named_modules()):
        right = step(plain, subject.batches, labels, entrance)
        subject.allowed = cache(partial(_rounding, subject, plain, labels, entrance))
    before = {name: one.clone() for name, one in halves.model.state_dict().items()}
    halves.model.train()
    optimizer = torch.optim.SGD([one for _, one in halves.head_parameters(cut)], lr=right.rate if right else 1e-3)
    loss = torch.nn.functional.cross_entropy(_head(halves, store, cut, subject.samples), labels)
    loss.backward()
    optimizer.step()
    halves.model.eval()
    with torch.no_grad():
        whole = halves.full(halves.collate(halves.prepare(subject.samples)))
        wanted = after = _head(halves, store, cut, subject.samples)
    if right is None:
        subject.notes.append("its layers share weights, which training takes apart: its step is compared with its RUN")
    else:
        wanted = alone(plain, subject.inputs)
        _compare_tensors(halves.model.state_dict(), _comparable(subject, plain), before, right.trained, subject.allowed)
        subject.expect(loss.detach()[None], f"the loss at {cut}", torch.tensor([right.loss]))
        subject.expect(after, f"the head from {cut} after a step", wanted)
    subject.expect(whole, f"the whole model after a step at {cut}", wanted)
    run = subject.folder / "run"
    run.mkdir()
    network.loaded.save(run, halves.recipe.max_length)
    subject.expect(alone(subject.plain(run), subject.inputs), "the RUN, loaded by transformers,", wanted)


def _rounding(subject: _Subject, plain: Any, labels: Tensor, entrance: str) -> float:
    """Largest error after a step that is rounding: ROUNDING times how far the plain model's own step is from the same
    in float64. BatchNorm over few images and the exponentials of state spaces multiply what is rounded."""
    exact = subject.plain().double()
    if exact._can_set_experts_implementation():
        exact.set_experts_implementation("eager")  # the grouped matrix product takes no float64
    step(exact, [_doubled(batch) for batch in subject.batches], labels, entrance)
    wanted = alone(exact, [_doubled(one) for one in subject.inputs])
    return ROUNDING * float((alone(plain, subject.inputs) - wanted).abs().max() / wanted.abs().max())


def _doubled(inputs: Inputs) -> Inputs:
    return {name: one.double() if one.is_floating_point() else one for name, one in inputs.items()}


def _comparable(subject: _Subject, plain: Any) -> Mapping[str, Tensor]:
    """What a step leaves the same: of texts the parameters alone, since ranges that a model counts in training are
    those of a batch, and the plain model has each text by itself."""
    return dict(plain.named_parameters()) if subject.modality == "text" else plain.state_dict()


def _compare_tensors(
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    may: Set[str],
    allowed: Callable[[], float],
) -> None:
    """The same tensors after a step; of those that are not to train every bit as before it."""
    for name, tensor in ours.items():
        if name not in may and not torch.equal(tensor, before[name]):
            raise _Wrong(f"a step moves {name}")
        if name in theirs and tensor.numel():
            right = theirs[name].detach().double()
            error = float((tensor.double() - right).abs().max()) / max(float(right.abs().max()), 1e-2)
            if error > BAR and error > allowed():
                raise _Wrong(f"a step leaves {name} {error:.1e} off")


def _entrance(halves: SplitModel, cut: str) -> str:
    """The module whose output is the rows, by name; of a block of several modules the last."""
    if halves.recipe.modality == "image":
        return cut
    names = {module: name for name, module in halves.model.named_modules()}
    block = halves.blocks_after("0")[int(cut) - 1]
    return names[block if block in names else list(block.children())[-1]]


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
