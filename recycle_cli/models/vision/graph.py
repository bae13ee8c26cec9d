"""A traced model in two halves: GraphModules over the same parameters, so that training a half trains the model."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from recycle_cli.models.vision.cutter import Named
from recycle_cli.models.vision.points import CutPoint, resolve_point
from recycle_cli.models.vision.tracing import Traced, crossings, measure, trace


class GraphCutter:
    """Cuts of a torchvision model at its graph. `size`: (C, H, W) of an image.

    Raises ModelError for a model that cannot be traced, or that does not take images of this size.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int, int]) -> None:
        self.model = model
        self.traced: Traced = trace(model)
        self.measured = measure(self.traced, size)
        crossing = list(crossings(self.traced))
        shapes = self.measured.shapes
        trains = self._before_parameters()
        self._nodes = [node for node, count in crossing if count == 1 and node in shapes and trains(node)]
        self.others = {
            name: (self.traced.order[node], count)
            for node, count in crossing
            if node not in self._nodes
            for name in self._names_of(node)
        }

    @cached_property
    def points(self) -> tuple[CutPoint, ...]:
        """The cuts in the order of computation."""
        total = max(1, sum(self.measured.flops.values()))
        points, flops, before = [], 0, -1
        for node in self._nodes:
            place = self.traced.order[node]
            passed = [one for one, at in self.traced.order.items() if before < at <= place]
            flops += sum(self.measured.flops.get(one, 0) for one in passed)
            before = place
            names = sorted(self._names_of(node), key=lambda name: (":" in name, name.count("."), name))
            points.append(CutPoint(names[0], tuple(names[1:]), self.measured.shapes[node], flops / total, place))
        return tuple(points)

    @property
    def blocks(self) -> int:
        """How many cuts there are."""
        return len(self.points)

    @cached_property
    def states(self) -> list[CutPoint]:
        """The state before the first block, if it is a cut, and those at which a block ends: a member of the outermost
        lists of modules, whose rows have as many axes as the first one's."""
        members = set(self._members())
        ends = [point for point in self.points if members & {point.name, *point.aliases}]
        blocks = [point for point in ends if len(point.shape) == len(ends[0].shape)]
        return [*([self.state_0] if self.state_0 else []), *blocks]

    @cached_property
    def state_0(self) -> CutPoint | None:
        """The last cut before the first node of the first block; None if there is none."""
        nodes = {str(node.target): place for node, place in self.traced.order.items() if node.op == "call_module"}
        begins = [
            place for name in self._members() for target, place in nodes.items() if f"{target}.".startswith(f"{name}.")
        ]
        before = [point for point in self.points if point.place < min(begins, default=0)]
        return before[-1] if before else None

    def _members(self) -> list[str]:
        """The names of the members of the model's outermost lists of modules."""
        lists = [name for name, one in self.model.named_modules() if isinstance(one, nn.ModuleList | nn.Sequential)]
        outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
        return [f"{name}.{own}" for name in outer for own, _ in self.model.get_submodule(name).named_children()]

    def resolve(self, cut: str) -> CutPoint | None:
        """The point that a cut names, None for the whole model. Raises UsageError if there is none."""
        return resolve_point(cut, self.points, self.others)

    def parameter_share(self, name: str) -> float:
        """Share of the model's parameters that lie before a cut."""
        sizes = {id(one): one.numel() for one in self.model.parameters()}
        place = self.traced.order[self._node(name)]
        passed = [node for node, at in self.traced.order.items() if at <= place]
        seen = {id(tensor) for node in passed for _, tensor in self._tensors_of(node)}
        return sum(count for key, count in sizes.items() if key in seen) / max(1, sum(sizes.values()))

    def full(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of the whole model, in the mode it is in; those of auxiliary heads are left out."""
        output: Any = self.model(images)
        logits: Tensor = output if isinstance(output, Tensor) else output[0]
        return logits

    def trunk(self, names: Sequence[str]) -> Callable[[Tensor], dict[str, Tensor]]:
        """Images (B, C, H, W) to rows (B, *shape) at each cut, in one pass that ends at the deepest."""
        cuts = {name: self._node(name) for name in names}
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        kept: dict[fx.Node, fx.Node] = {}
        for node in self._needed(cuts.values(), None):
            copies[node] = graph.node_copy(node, copies.__getitem__)
            if node in cuts.values() and len(cuts) > 1:
                # A later operation may work in place on these rows.
                kept[node] = graph.call_method("clone", (copies[node],))
        graph.output({name: kept.get(node, copies[node]) for name, node in cuts.items()})
        return fx.GraphModule(self.model, graph)

    def head(self, name: str) -> Callable[[Tensor], Tensor]:
        """Rows at a cut (B, *shape) to logits (B, classes)."""
        return self._from(self._node(name), self.traced.output)

    def between(self, name: str, later: str) -> Callable[[Tensor], Tensor]:
        """Rows at a cut (B, *shape) to the rows at a later one."""
        return self._from(self._node(name), self._node(later))

    def _from(self, cut: fx.Node, end: fx.Node) -> fx.GraphModule:
        """The part of the graph from the rows at `cut` to `end`."""
        graph = fx.Graph()
        # Cloned, since the first operation may work in place, on rows that belong to the caller.
        copies = {cut: graph.call_method("clone", (graph.placeholder("rows"),))}
        for node in self._needed([end], cut):
            copies[node] = graph.node_copy(node, copies.__getitem__)
        if end is not self.traced.output:
            graph.output(copies[end])
        return fx.GraphModule(self.model, graph)

    def trunk_tensors(self, name: str) -> Named:
        """Named parameters and buffers that the trunk reads in eval."""
        return self._tensors(self._needed([self._node(name)], None))

    def head_tensors(self, name: str) -> Named:
        """Named parameters and buffers that the head alone uses."""
        trunk = {id(tensor) for _, tensor in self.trunk_tensors(name)}
        head = self._tensors(self._needed([self.traced.output], self._node(name)))
        return [(name, tensor) for name, tensor in head if id(tensor) not in trunk]

    def check(self, name: str) -> None:
        """Nothing to find: the graph has every tensor that a half reads."""

    def trunk_modules(self, name: str) -> list[nn.Module]:
        """The modules that the trunk alone calls."""
        head = {
            node.target for node in self._needed([self.traced.output], self._node(name)) if node.op == "call_module"
        }
        trunk = {node.target for node in self._needed([self._node(name)], None) if node.op == "call_module"}
        return [self.model.get_submodule(str(target)) for target in sorted(map(str, trunk - head))]

    def _before_parameters(self) -> Callable[[fx.Node], bool]:
        """Whether a parameter is used after a node: a cut without a head to train is none."""
        users = [place for node, place in self.traced.order.items() if self._tensors_of(node)]
        return lambda node: self.traced.order[node] < max(users, default=-1)

    def _node(self, name: str) -> fx.Node:
        return self.traced.names[name]

    def _names_of(self, node: fx.Node) -> list[str]:
        return [name for name, one in self.traced.names.items() if one is node]

    def _needed(self, ends: Iterable[fx.Node], stop: fx.Node | None) -> list[fx.Node]:
        """The nodes on which `ends` depend, in order, up to and without `stop`."""
        todo = list(ends)
        found: set[fx.Node] = set(todo)
        while todo:
            for node in todo.pop().all_input_nodes:
                if node is not stop and node not in found:
                    found.add(node)
                    todo.append(node)
        return sorted(found, key=self.traced.order.__getitem__)

    def _tensors(self, nodes: Iterable[fx.Node]) -> Named:
        return list(dict(pair for node in nodes for pair in self._tensors_of(node)).items())

    def _tensors_of(self, node: fx.Node) -> Named:
        """The model's tensors that a node reads. The batches that BatchNorm counts decide nothing in eval: left out."""
        target = str(node.target)
        if node.op == "get_attr":
            owner, _, name = target.rpartition(".")
            value = getattr(self.model.get_submodule(owner), name)
            return [(target, value)] if isinstance(value, torch.Tensor) else []
        if node.op != "call_module":
            return []
        module = self.model.get_submodule(target)
        tensors: Named = [*module.named_parameters(), *module.named_buffers()]
        return [(f"{target}.{name}", one) for name, one in tensors if not name.endswith("num_batches_tracked")]
