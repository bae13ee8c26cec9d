"""Split an image model into trunk and head: the same fields as a text model's, an image being one row."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from recycle_cli.errors import UsageError
from recycle_cli.models.cuts import NO_TRUNK, each_cut
from recycle_cli.models.eval_mode import evaluating, freeze
from recycle_cli.models.identity import weights_digest
from recycle_cli.models.split_model import Buffers, Parameters, SplitModel
from recycle_cli.models.vision.cutter import Cutter
from recycle_cli.models.vision.inputs import PIXELS, ImageInputs
from recycle_cli.models.vision.points import WHOLE, CutPoint
from recycle_cli.models.vision.sources import LoadedImages
from recycle_cli.recipe import Recipe

BATCHNORM = ("train", "eval")


def split_images(
    loaded: LoadedImages,
    cutter: Cutter,
    cuts: Sequence[str],
    *,
    dtype: str,
    head_batchnorm: str = "train",
    state_0: bool = False,
) -> SplitModel:
    """Cut an image model at each of `cuts`: module names or shares of the FLOPs.

    The tensor that crosses for one image is one row, whatever its shape. `head_batchnorm` eval keeps the statistics of
    the head's BatchNorm layers too; the trunk's never move. `state_0`: the cut 0 is the state before the first block,
    which has a name of its own, and not the whole model. Raises UsageError for a place at which not one tensor alone
    crosses, ModelError for a model whose head would not train as in the whole model.
    """
    if head_batchnorm not in BATCHNORM:
        raise UsageError(f"--head-batchnorm {head_batchnorm}: expected one of {', '.join(BATCHNORM)}")
    names, points = _found(cutter, cuts, state_0=state_0)
    recipe = Recipe(
        modality="image",
        architecture=loaded.architecture,
        cuts={point.name: weights_digest(cutter.trunk_tensors(point.name)) for point in points},
        preprocessor=loaded.transform.digest,
        dtype=dtype,
    )
    return _assembled(recipe, names, _Halves(cutter, ImageInputs(loaded.transform), points, head_batchnorm))


def _found(cutter: Cutter, cuts: Sequence[str], *, state_0: bool) -> tuple[tuple[str, ...], list[CutPoint]]:
    """The names of the cuts, the whole model's first if it is one of them, and the points of the others in order."""
    asked = each_cut(cuts, lambda: [point.name for point in cutter.states])
    found = {_state_0(cutter) if state_0 and cut.strip() == WHOLE else cutter.resolve(cut) for cut in asked}
    if not found:
        raise UsageError("no cut given: expected at least one, as 50% or a module's name")
    points = sorted((point for point in found if point), key=lambda point: point.place)
    for point in points:
        cutter.check(point.name)
    return ((WHOLE,) if None in found else ()) + tuple(point.name for point in points), points


def _assembled(recipe: Recipe, names: tuple[str, ...], halves: "_Halves") -> SplitModel:
    last = halves.points.get(names[-1])
    return SplitModel(
        recipe=recipe,
        cuts=names,
        blocks=halves.cutter.blocks,
        row_shape=last.shape if last else (),
        model=halves.model,
        preprocessor=halves.inputs,
        trunk=halves.trunk,
        trunk_to=halves.trunk_to,
        head=lambda rows, lengths: halves.head_from(names[-1])(rows, lengths),
        head_from=halves.head_from,
        full=halves.full,
        head_parameters=halves.head_parameters,
        trunk_parameters=halves.trunk_parameters,
        freeze=halves.freeze,
        between=halves.between,
        head_buffers=halves.head_buffers,
    )


def _state_0(cutter: Cutter) -> CutPoint:
    if (point := cutter.state_0) is None:
        first = cutter.points[0].name
        raise UsageError(
            f"--cut 0: {type(cutter.model).__name__} has no cut before its first block, so that there is nothing to "
            f"store; the first cut is {first}"
        )
    return point


class _Halves:
    """The parts of a forward pass, from pixels or from rows."""

    def __init__(self, cutter: Cutter, inputs: ImageInputs, points: Sequence[CutPoint], head_batchnorm: str) -> None:
        self.cutter, self.inputs, self.model = cutter, inputs, cutter.model
        self.points = {point.name: point for point in points}
        self._trunk = cutter.trunk(list(self.points)) if points else None
        self._heads = {name: cutter.head(name) for name in self.points}
        self._keep_statistics = head_batchnorm == "eval"

    def full(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.cutter.full(self._images(batch))

    def trunk(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self._trunk is None:
            raise UsageError(NO_TRUNK)
        with evaluating(self.model), torch.inference_mode():
            return {name: crossing.unsqueeze(1) for name, crossing in self._trunk(self._images(batch)).items()}

    def trunk_to(self, cut: str) -> Callable[[Mapping[str, Tensor]], Tensor]:
        if self._known(cut) == WHOLE:
            raise UsageError(NO_TRUNK)
        part = self.cutter.trunk([cut])

        def run(batch: Mapping[str, Tensor]) -> Tensor:
            with evaluating(self.model), torch.inference_mode():
                return part(self._images(batch))[cut].unsqueeze(1)

        return run

    def head_from(self, cut: str) -> Callable[[Tensor, Tensor], Tensor]:
        if cut == WHOLE:
            raise UsageError("cut 0 has no head of its own: the whole model trains on the images")
        head, crossing = self._heads[self._known(cut)], self._crossing(cut)
        return lambda rows, lengths: head(crossing(rows))

    def between(self, cut: str, later: str) -> Callable[[Tensor, Tensor], Tensor]:
        if self._known(cut) == WHOLE:
            raise UsageError("cut 0 has no rows: the whole model runs on the images")
        if self._known(later) == WHOLE or self.points[cut].place >= self.points[later].place:
            raise UsageError(f"rows at cut {cut} cannot be taken to cut {later}: expected a cut after {cut}")
        part, crossing = self.cutter.between(cut, later), self._crossing(cut)

        def run(rows: Tensor, lengths: Tensor) -> Tensor:
            with evaluating(self.model), torch.inference_mode():
                return part(crossing(rows)).unsqueeze(1)

        return run

    def _crossing(self, cut: str) -> Callable[[Tensor], Tensor]:
        """A function from rows (B, 1, *shape) to the tensor (B, *shape) that crosses at a cut, on the right device."""
        shape = self.points[cut].shape

        def shaped(rows: Tensor) -> Tensor:
            # Rows made under inference mode cannot enter a graph; a copy can.
            rows = rows.clone() if rows.is_inference() and torch.is_grad_enabled() else rows
            return rows.to(self._device).reshape(len(rows), *shape)

        return shaped

    def head_parameters(self, cut: str) -> Parameters:
        if self._known(cut) == WHOLE:
            return list(self.model.named_parameters())
        return [(name, one) for name, one in self.cutter.head_tensors(cut) if isinstance(one, nn.Parameter)]

    def trunk_parameters(self, cut: str) -> Parameters:
        if self._known(cut) == WHOLE:
            return []
        return [(name, one) for name, one in self.cutter.trunk_tensors(cut) if isinstance(one, nn.Parameter)]

    def head_buffers(self, cut: str) -> Buffers:
        tensors = self.model.named_buffers() if self._known(cut) == WHOLE else self.cutter.head_tensors(cut)
        return [(name, one) for name, one in tensors if not isinstance(one, nn.Parameter) and one.is_floating_point()]

    def freeze(self, cut: str) -> None:
        """Keep the trunk without gradient and in eval, and the head's BatchNorm in eval too if that was asked for."""
        still = [] if self._known(cut) == WHOLE else self.cutter.trunk_modules(cut)
        if self._keep_statistics:
            still += [one for one in self.model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
        freeze(self.model, (one for _, one in self.trunk_parameters(cut)), still)

    def _known(self, cut: str) -> str:
        if cut != WHOLE and cut not in self.points:
            raise UsageError(f"cut {cut!r}: the model was split at {', '.join(self.points) or WHOLE}")
        return cut

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _images(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.inputs.transform.normalised(batch[PIXELS].to(self._device, non_blocking=True))
