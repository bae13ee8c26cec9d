"""A torchvision model as a graph, by `torch.fx`: its nodes by module path, and those at which one tensor crosses."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.proxy import TraceError
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import StochasticDepth

from recycle_cli.errors import ModelError
from recycle_cli.models.embedding import EmbeddingLayer
from recycle_cli.models.hub import first_line

PROBE_IMAGES = 3
"""Images in the pass that measures shapes: no dimension of a usual model has this size by chance."""

_UNTRACEABLE = (TraceError, TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError)
"""The exceptions of tracing a model whose course depends on its values."""


@dataclass(frozen=True)
class Traced:
    """One forward pass in eval as a graph. `names`: every place's name to its node; `order`: each node's position."""

    model: nn.Module
    graph: fx.Graph
    names: dict[str, fx.Node]
    order: dict[fx.Node, int]

    @property
    def input(self) -> fx.Node:
        """The node of the images."""
        return next(node for node in self.graph.nodes if node.op == "placeholder")

    @property
    def output(self) -> fx.Node:
        """The node that returns the logits."""
        return next(node for node in self.graph.nodes if node.op == "output")


@dataclass(frozen=True)
class Measured:
    """Shape and cost of each node's value: `shapes` without the image axis, of nodes that have it first."""

    shapes: dict[fx.Node, tuple[int, ...]] = field(default_factory=dict)
    flops: dict[fx.Node, int] = field(default_factory=dict)


class _Tracer(fx.Tracer):
    """Keeps which module each node was made in, and which node each call of a module ended with."""

    def __init__(self) -> None:
        super().__init__()
        self.path = ""
        self.made_in: dict[fx.Node, str] = {}
        self.ends: dict[str, list[fx.Node]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # Traced through, stochastic depth would stay in eval for ever; as a leaf it follows `model.train()`.
        # An embedding layer is one layer as the classifier was, so that the cuts are the same.
        return isinstance(m, StochasticDepth | EmbeddingLayer) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        outer, self.path = self.path, self.path_of_module(m)
        inner = self.path
        try:
            result = super().call_module(m, forward, args, kwargs)
        finally:
            self.path = outer
        if isinstance(result, fx.Proxy):
            self.ends.setdefault(inner, []).append(result.node)
        return result

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.made_in[node] = self.path
        return node


def trace(model: nn.Module) -> Traced:
    """Trace a model in eval. Raises ModelError if its course depends on the values of its input."""
    tracer = _Tracer()
    training = [module for module in model.modules() if module.training]
    try:
        graph = tracer.trace(model.eval())
    except _UNTRACEABLE as error:
        raise ModelError(
            f"{type(model).__name__} cannot be cut: torch.fx does not trace it ({first_line(error)})"
        ) from error
    finally:
        for module in training:
            module.training = True
    nodes = list(graph.nodes)
    return Traced(model, graph, _names(nodes, tracer), {node: place for place, node in enumerate(nodes)})


def measure(traced: Traced, size: tuple[int, int, int]) -> Measured:
    """Shapes and FLOPs of every node for images of `size` (C, H, W); nothing is computed, nothing allocated.

    FLOPs as `torch.utils.flop_counter` counts them: convolutions, matrix products and attention, two a multiply-add.
    Raises ModelError if the model does not take images of this size.
    """
    measured = Measured()
    fast = torch.backends.mha.get_fastpath_enabled()
    # The fused path of attention is one operation that the counter does not know.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
            _Meter(traced, measured, counter).run(torch.empty(PROBE_IMAGES, *size))
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise ModelError(
            f"{type(traced.model).__name__} does not take images of {size[1]} x {size[2]} pixels "
            f"({first_line(error)}); use the size that it was made for (--resize, --crop)"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return measured


class _Meter(fx.Interpreter):
    def __init__(self, traced: Traced, measured: Measured, counter: FlopCounterMode) -> None:
        super().__init__(traced.model, graph=traced.graph)
        # Else a failing node's source line is printed; we raise one line of our own.
        self.extra_traceback = False
        self.measured, self.counter = measured, counter

    def run_node(self, n: fx.Node) -> Any:
        before = self.counter.get_total_flops()
        result = super().run_node(n)
        self.measured.flops[n] = self.counter.get_total_flops() - before
        if (
            isinstance(result, Tensor)
            and result.is_floating_point()
            and result.ndim > 1
            and len(result) == PROBE_IMAGES
        ):
            self.measured.shapes[n] = tuple(result.shape[1:])
        return result


def crossings(traced: Traced) -> Iterator[tuple[fx.Node, int]]:
    """Each node between the images and the logits with how many values cross just after it, itself included.

    Only values that depend on the images count: a class token or a position table is the same in both halves.
    """
    live = _live(traced)
    order = traced.order
    last_use = {node: max((order[user] for user in node.users if user in live), default=-1) for node in live}
    crossing: list[fx.Node] = []
    for node in sorted(live, key=order.__getitem__):
        crossing = [one for one in [*crossing, node] if last_use[one] > order[node]]
        if node is not traced.output and node is not traced.input:
            yield node, len(crossing) if node in crossing else len(crossing) + 1


def _live(traced: Traced) -> set[fx.Node]:
    """The nodes that depend on the images and on which the logits depend."""
    behind = _closure(traced.output, lambda node: node.all_input_nodes)
    return behind & _closure(traced.input, lambda node: list(node.users))


def _closure(start: fx.Node, following: Callable[[fx.Node], list[fx.Node]]) -> set[fx.Node]:
    found, todo = {start}, [start]
    while todo:
        for node in following(todo.pop()):
            if node not in found:
                found.add(node)
                todo.append(node)
    return found


def _names(nodes: list[fx.Node], tracer: _Tracer) -> dict[str, fx.Node]:
    """Modules called once by their path; the n-th call of another as `path:n`; operations as `path.operation`."""
    names: dict[str, fx.Node] = {}
    for path, ends in tracer.ends.items():
        for number, node in enumerate(ends, start=1):
            names[path if len(ends) == 1 else f"{path}:{number}"] = node
    used: Counter[str] = Counter()
    for node in nodes:
        if node.op in ("call_function", "call_method"):
            called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
            path = f"{tracer.made_in[node]}.{called}".lstrip(".")
            used[path] += 1
            names[path if used[path] == 1 else f"{path}_{used[path] - 1}"] = node
    return names
