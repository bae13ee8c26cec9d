"""Prove before the first epoch that a training changes the head alone, and that the RUN it leaves gives the same."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from recycle_cli.errors import ModelError, RecycleError, StorageError
from recycle_cli.keys import Sample
from recycle_cli.models import BASE, Loaded, NamedModel, SplitModel, TaskLayer
from recycle_cli.models.adapters import put_back
from recycle_cli.models.hub import quiet
from recycle_cli.reports import spinner
from recycle_cli.runtime.devices import device_holding, to_device
from recycle_cli.settings import AdapterSettings, ModelSettings
from recycle_cli.training.draws import foreign_draws, positions
from recycle_cli.training.finish import write_model
from recycle_cli.training.setup import Setup

Weights = Mapping[str, Tensor]
"""What trains, by name."""

SAMPLES = 4
"""Few, since each costs some passes of the model."""

STEP = 1e-3
"""How far a weight moves in the trial step, as a share of the largest of its tensor: far enough to be seen."""

FROM_ZERO = 0.1
"""How far a weight moves whose tensor is all zeros, as half of an adapter is: a smaller step would not be seen."""

TOLERANCE = 1e-3
"""Largest difference of two outputs, as a share of the largest, that is rounding: other kernels may compute them."""


def prove_training(
    setup: Setup,
    layer: TaskLayer,
    samples: Sequence[Sample],
    folder: Path,
    weights: Weights | None = None,
    adapter: AdapterSettings = AdapterSettings(),  # noqa: B008 - frozen
) -> None:
    """Take a training step on a few samples, save and load the model as its RUN will be, and undo the step.

    Leaves the weights, the modes and the random generators as they were. `folder`: the RUN's, on whose disk the trial
    lies. `weights`: what trains if an `adapter` is in place, else all of the head. Raises ModelError if the step
    changes anything else, if training leaves out the layer at which the rows enter, if an image model's head trains
    otherwise than the whole, or if the loaded RUN has another recipe or gives other outputs.
    """
    split, device = setup.split, device_holding(setup.split.model)
    own = dict(split.head_parameters(setup.cut) if weights is None else weights)
    inputs = to_device(split.collate(split.prepare(samples[:SAMPLES])), device)
    trial = spinner("trying a training step, and saving and loading its RUN")
    with trial, torch.random.fork_rng(), _undone(split.model, own):
        _step(split, setup.cut, own, inputs)
        with torch.no_grad():
            after = _real(split, split.full(inputs), inputs)
            if setup.cut in split.recipe.cuts:
                _expect_equal(after, _real(split, _head(split, setup.cut, inputs)(), inputs), "a head that has trained")
        _prove_run(setup, layer, samples[:SAMPLES], after, _Saving(folder, adapter, own))


def _step(split: SplitModel, cut: str, own: Weights, inputs: Mapping[str, Tensor]) -> None:
    """A step of the head in training mode, on a loss without labels; the model is in eval afterwards."""
    compute = _head(split, cut, inputs) if cut in split.recipe.cuts else lambda: split.full(inputs)
    with torch.no_grad():
        compute()  # tables that follow the length of the texts are set now
    before, drawn = _sums(split.model), positions(split.model)
    split.model.train()
    name = type(split.model).__name__
    with _undone(split.model, {}):
        torch.manual_seed(0)
        once, foreign = foreign_draws(compute)
    if cut in split.recipe.cuts:
        with _LowDraws(), torch.no_grad():
            compute()
    torch.manual_seed(0)
    outputs = compute()
    outputs.float().square().mean().backward()
    split.model.eval()
    if foreign or positions(split.model) != drawn:
        raise ModelError(
            f"{name} cannot be trained from cut {cut}: in training it draws from a random generator of its own, of "
            "Python or of numpy, which --seed does not set, as models do that leave out layers at random; set its "
            "layerdrop to 0 in config.json, or take another model"
        )
    if not _error(once, outputs.detach()) <= TOLERANCE:
        raise ModelError(
            f"{name} cannot be trained from cut {cut}: in training it gives other outputs for the same texts or images "
            "and the same --seed: it draws random numbers of its own, or goes by how often it was called; take another "
            "model"
        )
    for other, parameter in split.model.named_parameters():
        if parameter.grad is not None and other not in own:
            raise ModelError(f"{name} cannot be trained from cut {cut}: the loss reaches {other}, no part of the head")
    _move(own)
    heads = own.keys() | dict(split.head_buffers(cut)).keys()
    changed = {key for key, total in _sums(split.model).items() if before.get(key) != total}
    if strange := sorted(changed - heads):
        raise ModelError(
            f"{name} cannot be trained from cut {cut}: a step changes {strange[0]}, which is no part of the head"
        )
    if cut in split.recipe.cuts and split.recipe.modality == "image":
        _check_pass(split, compute, inputs)


def _move(own: Weights) -> None:
    """Move each weight against its gradient, far enough to be seen."""
    with torch.no_grad():
        for weight in own.values():
            if weight.grad is not None:
                steepest, largest = weight.grad.abs().max().clamp_min(1e-30), weight.abs().max()
                reach = torch.where(largest > 0, STEP * largest.clamp_min(STEP), FROM_ZERO)
                weight.sub_(reach * weight.grad / steepest)


def _check_pass(split: SplitModel, compute: Callable[[], Tensor], inputs: Mapping[str, Tensor]) -> None:
    """Raise ModelError if in training, with the same random numbers, the head gives other outputs than the whole.

    A graph that was traced in eval has no dropout that a model's own code switches on in training.
    """
    split.model.train()
    with torch.no_grad():
        torch.manual_seed(0)
        halves = compute()
        torch.manual_seed(0)
        whole = split.full(inputs)
    split.model.eval()
    _expect_equal(whole, halves, "in training the head")


def _head(split: SplitModel, cut: str, inputs: Mapping[str, Tensor]) -> Callable[[], Tensor]:
    """The head over the rows of the inputs."""
    rows, mask = split.trunk(inputs)[cut], inputs.get("attention_mask")
    lengths = torch.ones(len(rows), dtype=torch.int64, device=rows.device) if mask is None else mask.sum(1)
    return lambda: split.head_from(cut)(rows.clone(), lengths)


def _real(split: SplitModel, outputs: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """The outputs that mean something."""
    mask = inputs.get("attention_mask")
    return outputs[mask.bool()] if split.per_row and mask is not None else outputs


@dataclass(frozen=True)
class _Saving:
    """Where a RUN is to be, and how it is saved: its adapter, and what trains."""

    folder: Path
    adapter: AdapterSettings
    weights: Weights

    def loaded_for(self, setup: Setup) -> Any:
        """The model to save: with an adapter a copy of its head, since saving takes the adapter away."""
        if self.adapter.kind == "none":
            return setup.loaded
        own, loaded = {id(one) for one in self.weights.values()}, cast(Any, setup.loaded)
        head = own | {id(one) for _, one in setup.split.head_parameters(setup.cut)}
        shared: dict[int, Any] = {id(one): one for one in loaded.model.parameters() if id(one) not in head}
        if isinstance(loaded, Loaded):
            shared[id(loaded.tokenizer)] = loaded.tokenizer
        # All of it and not only its model: what it saves may be a larger model, or be held by the function that saves.
        return deepcopy(loaded, shared)


def _prove_run(setup: Setup, layer: TaskLayer, samples: Sequence[Sample], expected: Tensor, saving: _Saving) -> None:
    split, folder = setup.split, saving.folder
    disk = next(one for one in (folder.resolve(), *folder.resolve().parents) if one.is_dir())
    with TemporaryDirectory(prefix="recycle-proof-", dir=disk) as place:
        try:
            with _same_modules(split.model), quiet():
                loaded = saving.loaded_for(setup)
                write_model(loaded, saving.adapter, saving.weights, Path(place), split.recipe.max_length)
        except (RecycleError, MemoryError):
            raise
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"{disk} cannot be written ({error}), where the RUN is tried first; free some space, or choose another "
                "--output"
            ) from error
        except Exception as error:  # a library refuses to save in its own words
            said = " ".join(str(error).split())
            raise ModelError(
                f"model {setup.model.name!r} could not be saved after its training: {said}; correct its config.json, "
                "or take another model"
            ) from error
        apart = saving.adapter.kind == "bottleneck" or setup.reused is not None
        again = _loaded_again(Path(place), setup, layer, apart=apart)
    again.model.to(device_holding(split.model)).eval()
    wanted = split.recipe.at(setup.cut) if setup.cut in split.recipe.cuts else split.recipe
    if difference := wanted.difference(again.recipe):
        raise ModelError(f"model {setup.model.name!r}: its RUN would be another model ({difference}); take another one")
    inputs = to_device(again.collate(again.prepare(samples)), device_holding(again.model))
    with torch.no_grad():
        _expect_equal(expected, _real(again, again.full(inputs), inputs), "its RUN, saved and loaded,")


def _loaded_again(place: Path, setup: Setup, layer: TaskLayer, *, apart: bool) -> SplitModel:
    """The saved model in halves, as `predict` loads it. `apart`: what was trained lies in part beside it."""
    asked = setup.model.settings
    settings = ModelSettings(
        str(place / BASE if apart else place),
        max_length=setup.split.recipe.max_length,
        trust_remote_code=asked.trust_remote_code,
        device=asked.device,
    )
    with quiet():
        network = NamedModel(settings, setup.reused).open(layer.kept)
        if apart:
            put_back(network.loaded, place)
        return network.split((setup.cut,), setup.split.recipe.dtype)


def _expect_equal(one: Tensor, other: Tensor, what: str) -> None:
    error = _error(one, other)
    if not error <= TOLERANCE:
        raise ModelError(f"the model cannot be trained: {what} gives outputs {error:.1e} off; take another one")


def _error(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max().clamp_min(1e-30))


def _sums(model: nn.Module) -> dict[str, int]:
    """A sum over the bytes of each tensor of floats, by name."""
    return {name: _sum(one) for name, one in _tensors(model) if one.is_floating_point()}


def _sum(tensor: Tensor) -> int:
    flat = tensor.detach().contiguous().reshape(-1)
    return int(flat.view(torch.int32 if flat.element_size() == 4 else torch.uint8).sum(dtype=torch.int64))


def _tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


@contextmanager
def _undone(model: nn.Module, own: Weights) -> Iterator[None]:
    """Whatever happens inside, what trains, all buffers, the modes and the generators are afterwards as they were."""
    drawn = random.getstate(), np.random.get_state()
    kept = [(one, one.detach().clone()) for one in (*own.values(), *model.buffers())]
    # A model may put other tensors in their place, as I-BERT does.
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])
        for module, own_buffers in buffers:
            module._buffers.update(own_buffers)
        with torch.no_grad():
            for one, was in kept:
                one.copy_(was)
        model.zero_grad(set_to_none=True)
        for module, mode in modes:
            module.training = mode


@contextmanager
def _same_modules(model: nn.Module) -> Iterator[None]:
    """Put modules back that saving replaces: an embedding layer is merged into a plain one."""
    children = [(module, dict(module._modules)) for module in model.modules()]
    with ExitStack() as stack:
        for module, own in children:
            stack.callback(module._modules.update, own)
        yield


class _LowDraws(TorchFunctionMode):
    """A single number drawn at random is 0 inside: a layer that is skipped now and then is skipped now."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        drawn = isinstance(result, Tensor) and result.numel() == 1 and getattr(func, "__name__", "").startswith("rand")
        return torch.zeros_like(result) if drawn else result
