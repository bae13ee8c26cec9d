"""The layers of a head that can freeze, what of the model belongs to each, and the cut that lies behind frozen ones."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from recycle_cli.errors import UsageError
from recycle_cli.models import SplitModel
from recycle_cli.models.eval_mode import keep_in_eval

Weights = Mapping[str, nn.Parameter]


@dataclass(frozen=True)
class Layers:
    """Layers in the order of computation; what comes after the last cut is none of them.

    split   the model in halves at each of the cuts
    cuts    the first: where the head begins; behind each of the others a block ends
    leaves  whether the layers are all modules that hold weights themselves, and not the blocks between the cuts
    """

    split: SplitModel
    cuts: tuple[str, ...]
    leaves: bool = False

    @cached_property
    def _after(self) -> list[Weights]:
        """The weights behind each cut."""
        return [dict(self.split.head_parameters(cut)) for cut in self.cuts]

    @cached_property
    def by_name(self) -> dict[str, Weights]:
        """The weights of each layer, by the layer's name: that of the cut behind it, or the module's."""
        if not self.leaves:
            pairs = zip(self.cuts[1:], self._after, self._after[1:], strict=False)
            return {cut: {name: one for name, one in own.items() if name not in rest} for cut, own, rest in pairs}
        named = {id(one): name for name, one in self._after[0].items()}
        found: dict[str, Weights] = {}
        for name, module in self.split.model.named_modules():
            own = {named[id(one)]: one for one in module.parameters() if id(one) in named}
            if own and next(module.children(), None) is None:
                found[name] = own
        return found

    @cached_property
    def weights(self) -> list[Weights]:
        """The weights of each layer."""
        return list(self.by_name.values())

    def __len__(self) -> int:
        return len(self.weights)

    def names_in(self, layers: Iterable[int]) -> set[str]:
        """The names of the weights of some layers."""
        return {name for layer in layers for name in self.weights[layer]}

    def cut_behind(self, frozen: Iterable[int]) -> str:
        """The last cut before which nothing trains any more, if these layers are frozen."""
        names, found = self.names_in(frozen), self.cuts[0]
        for cut, rest in zip(self.cuts[1:], self._after[1:], strict=True):
            if any(name not in names and name not in rest for name in self._after[0]):
                break
            found = cut
        return found

    def freeze(self, frozen: Iterable[int]) -> None:
        """Take these layers out of training: no gradient, and eval whatever the mode of the model becomes."""
        frozen = list(frozen)
        self.split.freeze(self.cut_behind(frozen))
        for layer in frozen:
            for weight in self.weights[layer].values():
                weight.requires_grad_(False)
        whole = [module for module in self.split.model.modules() if _is_frozen(module)]
        keep_in_eval({id(part): part for module in whole for part in module.modules()}.values())


def _is_frozen(module: nn.Module) -> bool:
    """Whether a module has weights and none of them trains."""
    trains = [one.requires_grad for one in module.parameters()]
    return bool(trains) and not any(trains)


def layers_between(split: SplitModel, start: str, *, leaves: bool) -> Layers:
    """The layers from the cut `start` on. Raises UsageError if there is none to freeze."""
    cuts = split.cuts[split.cuts.index(start) :]
    found = Layers(split, cuts, leaves)
    if len(cuts) < 2 or not len(found):
        raise UsageError(f"--freeze: no block of the model comes after the cut {start}; take an earlier one")
    return found
