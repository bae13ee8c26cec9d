"""Which tensors belong to the trunk of a cut, which ones may train, and how the trunk is kept frozen."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from recycle_cli.models.eval_mode import freeze
from recycle_cli.models.split_model import Buffers, Parameters
from recycle_cli.models.text.blocks import Block


@dataclass(frozen=True)
class Used:
    """The parameters, by `id`, behind a cut's rows and behind its head's outputs, and the modules called for the rows,
    as a pass through both has shown."""

    trunk: frozenset[int]
    head: frozenset[int]
    called: tuple[nn.Module, ...]


@dataclass(frozen=True)
class Ownership:
    """The model's parameters at one cut, by `id`: behind the trunk's rows, and behind the head alone.

    `plain`: the modules without parameters that the trunk calls, dropouts above all. `whole`: there is no trunk.
    """

    model: Any
    blocks: Sequence[Block]
    cut: int
    trunk: frozenset[int]
    head: frozenset[int]
    plain: tuple[nn.Module, ...] = ()
    whole: bool = False

    def trunk_parameters(self) -> Parameters:
        """Named parameters that the rows depend on."""
        return [(name, one) for name, one in self.model.named_parameters() if id(one) in self.trunk]

    def head_parameters(self) -> Parameters:
        """Named parameters that the head uses and the trunk does not."""
        return [(name, one) for name, one in self.model.named_parameters() if id(one) in self.head]

    def trunk_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The trunk's parameters and persistent buffers, named as in the bare model without its task layer."""
        base = self.model.base_model
        names = {id(one): name for name, one in base.named_parameters()}
        heads = self._heads_modules()
        for name, parameter in self.trunk_parameters():
            yield names.get(id(parameter), f"task.{name}"), parameter
        for prefix, module in base.named_modules():
            if module not in heads:
                yield from _persistent_buffers(prefix, module)

    def head_buffers(self) -> Buffers:
        """Named buffers of floats in the head that a checkpoint keeps: training may count in them, as I-BERT does."""
        own = self._heads_modules()
        heads = [(name, module) for name, module in self.model.named_modules() if self.whole or module in own]
        named = [pair for prefix, module in heads for pair in _persistent_buffers(prefix, module)]
        return [(name.removeprefix("."), one) for name, one in named if one.is_floating_point()]

    def freeze(self) -> None:
        """Take the trunk out of training: no gradient, and eval whatever the mode of the model becomes."""
        freeze(self.model, (one for _, one in self.trunk_parameters()), self._trunk_modules())

    def _trunk_modules(self) -> list[nn.Module]:
        """Modules all of whose parameters are the trunk's, outermost and innermost alike, and dropouts beside them."""
        owned = [(module, [id(one) for one in module.parameters()]) for module in self.model.modules()]
        whole = [module for module, ids in owned if ids and self.trunk.issuperset(ids)]
        heads = self._heads_modules()
        return whole + [module for module in self.plain if module not in heads]

    def _heads_modules(self) -> frozenset[nn.Module]:
        """Modules of the head's blocks, and those that hold a parameter of the head themselves."""
        inside = [part for block in self.blocks[self.cut :] for part in block.module.modules()]
        modules = self.model.modules()
        holding = [one for one in modules if any(id(own) in self.head for own in one.parameters(recurse=False))]
        return frozenset((*inside, *holding))


def parameters_in(modules: Iterable[nn.Module]) -> frozenset[int]:
    """`id` of each parameter of the modules, used in every pass or not (experts may rest)."""
    return frozenset(id(one) for module in modules for one in module.parameters())


def parameters_of_blocks(blocks: Sequence[Block]) -> frozenset[int]:
    """`id` of each parameter of the blocks."""
    return parameters_in(block.module for block in blocks)


def _persistent_buffers(prefix: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, buffer in module.named_buffers(recurse=False):
        if name not in module._non_persistent_buffers_set:
            yield f"{prefix}.{name}", buffer
