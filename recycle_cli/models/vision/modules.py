"""A model cut at its modules, for those that torch.fx does not trace: every cut is proved before it is used.

Trunk: a forward pass that ends with the module of the cut. Head: a forward pass in which the modules that were
done by then return blanks of the right shape, and the module of the cut returns the stored rows. If more than the rows
reached the rest of the model, the blanks would show in the logits; that is the proof.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from recycle_cli.errors import ModelError, UsageError
from recycle_cli.models.dependence import parameters_behind, without_gradient
from recycle_cli.models.eval_mode import evaluating
from recycle_cli.models.hub import first_line
from recycle_cli.models.vision.blanks import PROBE_IMAGES, blank, is_per_image, returning, rows_of, with_rows
from recycle_cli.models.vision.cutter import Named
from recycle_cli.models.vision.inputs import PIXELS
from recycle_cli.models.vision.keeping import Attributes, check_step, is_rounding
from recycle_cli.models.vision.points import CutPoint, resolve_point

_CANNOT_RUN = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, IndexError)


_LISTS: tuple[tuple[type[nn.Module], ...], ...] = ((nn.ModuleList,), (nn.ModuleList, nn.Sequential), (nn.Module,))
"""The modules whose members may be blocks: lists, as transformers has them; sequences, as timm has them; any module.
The next are looked at if none of the first is a cut, so that a model's cuts stay what they are."""


class _Stop(Exception):  # noqa: N818 - it reports no error: it ends a forward pass that has given all we want
    """Leaves the forward pass once the deepest cut has been reached."""


@dataclass
class _Call:
    """One module's only call: begin and end, the first argument, the output, and the FLOPs of the pass at its end."""

    module: nn.Module
    name: str
    begin: int
    end: int = -1
    output: Any = None
    flops: int = 0
    given: Any = None


class ModuleCutter:
    """Cuts of a transformers image model after its blocks and stages. `size`: (C, H, W) of an image.

    Raises ModelError if the model does not take such images, or no module's output is all that the rest needs.
    """

    def __init__(self, model: Any, size: tuple[int, int, int]) -> None:
        self.model: Any = model
        self._size = size
        # The halves replace modules' forwards while they run: two threads take turns.
        self._lock = RLock()
        generator = torch.Generator().manual_seed(0)
        self._probe = torch.rand(PROBE_IMAGES, *size, generator=generator)
        self._fresh = Attributes(model)
        self._calls, self._flops = self._watched()
        self._proved: set[str] = set()
        self._before: dict[str, _Call] = {}
        whole = self._whole()
        for kinds in _LISTS:
            self._offered = {call.name: call for call in self._candidates(kinds)}
            deepest_first = sorted(self._offered.values(), key=lambda call: call.end, reverse=True)
            if any(self._holds(call, whole) for call in deepest_first):
                return
        name = type(model).__name__
        if not is_rounding(self._whole(), whole):
            raise ModelError(
                f"{name} cannot be cut: in eval, too, it draws random numbers, and gives other outputs for the same "
                "images each time; take another model"
            )
        raise ModelError(f"{name} cannot be cut: no block's output is all that the rest needs")

    @cached_property
    def points(self) -> tuple[CutPoint, ...]:
        """The cuts in the order of computation: all are proved, which takes a pass for each."""
        whole = self._whole()
        return self._points([call for call in list(self._offered.values()) if self._holds(call, whole)])

    @property
    def blocks(self) -> int:
        """How many blocks and stages may be cuts."""
        return len(self._offered)

    @property
    def states(self) -> list[CutPoint]:
        """The state before the first block, if it is a cut, and the output of each block and stage."""
        return [*([self.state_0] if self.state_0 else []), *self.points]

    @cached_property
    def state_0(self) -> CutPoint | None:
        """The output of the outermost module that gives the first block its rows; None if there is none or it is no
        cut."""
        first = min(self._offered.values(), key=lambda call: call.begin)
        for call in self._calls.values():
            if 0 <= call.end < first.begin and first.given is not None and rows_of(call.output) is first.given:
                self._before[call.name] = call
                return self._points([call])[0] if self._holds(call, self._whole()) else None
        return None

    @property
    def others(self) -> dict[str, tuple[int, int]]:
        """Names of places at which no cut is possible: their position, and the number of tensors that cross."""
        ended = {name: call for name, call in self._calls.items() if call.end >= 0 and name not in self._offered}
        return {name: (call.end, 2) for name, call in ended.items()}

    def resolve(self, cut: str) -> CutPoint | None:
        """The point that a cut names, None for the whole model; proved. Raises UsageError if there is none."""
        while True:
            try:
                point = resolve_point(cut, self._points(self._offered.values()), {})
            except UsageError:
                if self.state_0 is not None and self.state_0.name == cut.strip():
                    return self.state_0
                return resolve_point(cut, self.points, self.others)
            if point is None or point.name in self._proved or self._holds(self._offered[point.name], self._whole()):
                return point

    def parameter_share(self, name: str) -> float:
        """Share of the model's parameters that the rows at a cut depend on."""
        held = sum(one.numel() for _, one in self.trunk_tensors(name) if isinstance(one, nn.Parameter))
        return held / sum(one.numel() for one in self.model.parameters())

    def full(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of the whole model, in the mode it is in."""
        with self._lock:
            return self._logits(self.model(**{PIXELS: images}))

    def trunk(self, names: Sequence[str]) -> Callable[[Tensor], dict[str, Tensor]]:
        """Images (B, C, H, W) to rows (B, *shape) at each cut, in one pass that ends at the deepest."""
        calls = [self._call(name) for name in names]

        def run(images: Tensor) -> dict[str, Tensor]:
            with self._lock:
                return self._trunk(images, calls)

        return run

    def head(self, name: str) -> Callable[[Tensor], Tensor]:
        """Rows at a cut (B, *shape) to logits (B, classes)."""
        call = self._call(name)

        def run(rows: Tensor) -> Tensor:
            with self._lock:
                return self._head(call, rows)

        return run

    def between(self, name: str, later: str) -> Callable[[Tensor], Tensor]:
        """Rows at a cut (B, *shape) to the rows at a later one."""
        call, last = self._call(name), self._call(later)

        def run(rows: Tensor) -> Tensor:
            with self._lock, self._begun_at(call, rows) as images:
                return self._trunk(images, [last])[later]

        return run

    def trunk_tensors(self, name: str) -> Named:
        """Named parameters that the rows depend on, and buffers of the modules that are done by then."""
        call = self._call(name)
        with evaluating(self.model):
            behind = parameters_behind(lambda: self._trunk(self._probe_here, [call])[name], self.model)
        done = {id(one) for module in self._done(call) for one in module.buffers()}
        return [*self._named(self.model.named_parameters(), behind), *self._named(self.model.named_buffers(), done)]

    def head_tensors(self, name: str) -> Named:
        """Named parameters and buffers that the head uses and the trunk does not."""
        call = self._call(name)
        trunk = {id(one) for _, one in self.trunk_tensors(name)}
        with evaluating(self.model):
            rows = self._trunk(self._probe_here, [call])[name].detach()
            ahead = parameters_behind(lambda: self._head(call, rows), self.model)
        rest = {id(one) for one in self.model.buffers()}
        return [
            (key, one)
            for key, one in [
                *self._named(self.model.named_parameters(), ahead),
                *self._named(self.model.named_buffers(), rest),
            ]
            if id(one) not in trunk
        ]

    def trunk_modules(self, name: str) -> list[nn.Module]:
        """The modules that are done when the cut is reached, with all inside them."""
        return [inner for module in self._done(self._call(name)) for inner in module.modules()]

    def _call(self, name: str) -> _Call:
        return self._before[name] if name in self._before else self._offered[name]

    @property
    def _probe_here(self) -> Tensor:
        return self._probe.to(next(self.model.parameters()).device)

    def _named(self, tensors: Iterable[tuple[str, Tensor]], wanted: AbstractSet[int]) -> Named:
        return [(key, one) for key, one in tensors if id(one) in wanted and not key.endswith("num_batches_tracked")]

    def _watched(self) -> tuple[dict[str, _Call], int]:
        """One pass: every module that is called just once, and the FLOPs of all."""
        calls: dict[str, _Call] = {}
        repeated: set[str] = set()
        clock = iter(range(10**9))
        with (
            ExitStack() as hooks,
            evaluating(self.model),
            without_gradient(self.model),
            FlopCounterMode(display=False) as counter,
        ):

            def watch(name: str, module: nn.Module) -> None:
                def before(module: nn.Module, args: Any) -> None:
                    repeated.update({name} & calls.keys())
                    calls[name] = _Call(module, name, next(clock), given=args[0] if args else None)

                def after(module: nn.Module, args: Any, output: Any) -> None:
                    calls[name].end, calls[name].output = next(clock), output
                    calls[name].flops = counter.get_total_flops()

                hooks.callback(module.register_forward_pre_hook(before).remove)
                hooks.callback(module.register_forward_hook(after).remove)

            for name, module in self.model.named_modules():
                if name:
                    watch(name, module)
            try:
                self.model(**{PIXELS: self._probe_here})
            except _CANNOT_RUN as error:
                raise ModelError(self._refusal(first_line(error))) from error
        uses = [one.begin for one in calls.values() if next(one.module.parameters(recurse=False), None) is not None]
        self._last_use = max(uses, default=-1)
        return {name: call for name, call in calls.items() if name not in repeated}, max(1, counter.get_total_flops())

    def _refusal(self, why: str) -> str:
        """Why the model does not take an image: for its size, or since it wants more than pixels."""
        name, taken = type(self.model).__name__, inspect.signature(type(self.model).forward).parameters
        if PIXELS not in taken:
            first = getattr(self.model, "main_input_name", "something else")
            return f"{name} cannot be cut: it takes {first} and no {PIXELS} ({why}); use a model that takes pixels"
        if beside := [one for one in taken if one != PIXELS and one.startswith(("pixel_", "spatial_", "input_"))]:
            return (
                f"{name} cannot be cut: it takes {', '.join(beside)} beside {PIXELS}, which is all that an image is "
                f"here ({why}); use a model that takes pixels alone"
            )
        return (
            f"{name} does not take images of {self._size[1]} x {self._size[2]} pixels ({why}); use the size that it "
            "was made for (--resize, --crop)"
        )

    def _candidates(self, kinds: tuple[type[nn.Module], ...]) -> list[_Call]:
        """Blocks and stages: members of modules of these kinds, outermost ones and those in them, that leave parameters
        to train."""
        lists = {name for name, module in self.model.named_modules() if isinstance(module, kinds)}
        members = [call for call in self._calls.values() if call.name.rpartition(".")[0] in lists]
        return [call for call in members if 0 <= call.end < self._last_use and rows_of(call.output) is not None]

    def _points(self, calls: Iterable[_Call]) -> tuple[CutPoint, ...]:
        ordered = sorted(calls, key=lambda call: call.end)
        return tuple(
            CutPoint(call.name, (), tuple(rows_of(call.output).shape[1:]), call.flops / self._flops, call.end)
            for call in ordered
        )

    @property
    def _others(self) -> Tensor:
        """Other images than those that were watched, and another number of them."""
        return self._probe_here.flip(0)[: PROBE_IMAGES - 1] * 0.7

    def _whole(self) -> Tensor:
        with evaluating(self.model), torch.no_grad():
            return self.full(self._others)

    def _holds(self, call: _Call, whole: Tensor) -> bool:
        """Whether head after trunk gives the whole model's logits; a cut where it does not is offered no more."""
        if call.name not in self._proved:
            with evaluating(self.model), torch.no_grad():
                try:
                    halves = self._head(call, self._trunk(self._others, [call])[call.name])
                except _CANNOT_RUN:
                    halves = whole[:0]
            if halves.shape != whole.shape or not is_rounding(halves, whole):
                self._offered.pop(call.name, None)
                self._before.pop(call.name, None)
                return False
            self._proved.add(call.name)
        return True

    def check(self, name: str) -> None:
        """Raise ModelError if a step of the head at a cut changed anything but the head, or not all of what it does."""
        with self._lock:
            check_step(self, name, self._others, self._fresh)

    def _trunk(self, images: Tensor, calls: Sequence[_Call]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        last = max(calls, key=lambda call: call.end)
        with ExitStack() as hooks:
            for call in calls:

                def keep(module: nn.Module, args: Any, output: Any, call: _Call = call) -> None:
                    rows = rows_of(output)
                    assert rows is not None
                    found[call.name] = rows
                    if call is last:
                        raise _Stop

                hooks.callback(call.module.register_forward_hook(keep).remove)
            try:
                self.model(**{PIXELS: images})
            except _Stop:
                return found
        raise AssertionError("the forward pass went by the deepest cut")

    def _head(self, call: _Call, rows: Tensor) -> Tensor:
        with self._begun_at(call, rows) as images:
            return self._logits(self.model(**{PIXELS: images}))

    def _logits(self, output: Any) -> Tensor:
        logits = getattr(output, "logits", None)
        if not isinstance(logits, Tensor):
            raise ModelError(
                f"{type(self.model).__name__} gives no logits for images, but {type(output).__name__}; expected an "
                "image classifier"
            )
        return logits

    @contextmanager
    def _begun_at(self, call: _Call, rows: Tensor) -> Iterator[Tensor]:
        """Inside the block a forward pass begins with `rows` at a cut; gives the images to call the model with."""
        with ExitStack() as stack:
            for done in self._blanked(call):
                stack.enter_context(returning(done.module, blank(done.output, rows)))
            stack.enter_context(returning(call.module, with_rows(blank(call.output, rows), rows)))
            yield rows.new_zeros(len(rows), *self._size)

    def _done(self, call: _Call) -> list[nn.Module]:
        return [*(one.module for one in self._blanked(call)), call.module]

    def _blanked(self, call: _Call) -> list[_Call]:
        """The outermost modules that end before the cut's module begins, and whose outputs have images along the first
        axis: any other output (a table of positions) may be needed later, and is computed again."""
        ended = [one for one in self._calls.values() if 0 <= one.end < call.begin and is_per_image(one.output)]
        return [one for one in ended if not any(other.begin < one.begin and one.end < other.end for other in ended)]
