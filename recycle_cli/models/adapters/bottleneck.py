"""Bottleneck adapters: after each attention and feed-forward of the remaining blocks down, GELU, up, and added.

Houlsby et al. (ICML 2019) put one after both; Pfeiffer et al. (EACL 2021) keep only that after the feed-forward. Here
they are as in the code of Embedding Recycling: after both, 24 wide. They cannot be folded into the layers beside them,
so a RUN keeps them apart: RUN/base alone is no classifier, and RUN itself is no checkpoint.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.errors import StoreError
from recycle_cli.keys import Sample
from recycle_cli.models import BASE, AnyLoaded, SplitModel, settle_embedding
from recycle_cli.models.adapters.choice import chosen
from recycle_cli.settings import AdapterSettings

ADAPTER = "adapter"
CONFIG, WEIGHTS = "bottleneck.json", "bottleneck.safetensors"
NAME = "recycle_bottleneck"


class Bottleneck(nn.Module):
    """Rows (..., width) to rows; it begins as the identity, so that training begins at the pretrained model.

    `axis`: the axis of the width, if it is not the last (SqueezeBERT's rows are samples, width, tokens).
    """

    def __init__(self, width: int, inner: int, dropout: float, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis
        self.dropout = nn.Dropout(dropout)
        self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)
        nn.init.normal_(self.down.weight, std=0.02)
        for tensor in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(tensor)

    def forward(self, rows: Tensor) -> Tensor:
        turned = rows.movedim(self.axis, -1)
        return (turned + self.up(F.gelu(self.down(self.dropout(turned))))).movedim(-1, self.axis)


def attach(split: SplitModel, cut: str, settings: AdapterSettings) -> set[str]:
    """Put an adapter behind each sublayer of the head's blocks. Returns the names of their parameters."""
    width, axes = split.row_shape[-1], _sublayers(split, cut)
    for name in chosen(list(axes), cut, settings):
        _insert(split.model, name, Bottleneck(width, settings.width, settings.dropout, axes[name]))
    return {name for name, _ in split.model.named_parameters() if f".{NAME}." in name}


def save_beside(loaded: AnyLoaded, weights: Mapping[str, Tensor], folder: Path, max_length: int | None) -> None:
    """Write the model without its adapters into RUN/base, and everything that was trained into RUN/adapter.

    The trained layers are nan in RUN/base, so that nobody takes it for a whole model.
    """
    model, target = loaded.model, folder / ADAPTER
    settle_embedding(model)
    weights = {name: weight for name, weight in model.named_parameters() if name in weights}
    trained = {name: weight.detach().cpu().contiguous().clone() for name, weight in weights.items()}
    inserted = {name: model.get_submodule(name).get_submodule(NAME) for name in _carriers(model)}
    sizes = {
        name: {"width": one.down.in_features, "inner": one.down.out_features, "axis": one.axis}
        for name, one in inserted.items()
    }
    with torch.no_grad():
        for weight in weights.values():
            weight.fill_(torch.nan)
    for name in inserted:
        del model.get_submodule(name)._modules[NAME]
    loaded.save(folder / BASE, max_length)
    target.mkdir(exist_ok=True)
    save_file(trained, target / WEIGHTS, {"format": "pt"})
    (target / CONFIG).write_text(json.dumps({"adapters": sizes}, indent=2) + "\n", encoding="utf-8")


def put_back(model: nn.Module, run: Path) -> None:
    """Turn the model of RUN/base into the trained one. Raises StoreError if the adapter is damaged."""
    try:
        sizes = json.loads((run / ADAPTER / CONFIG).read_text(encoding="utf-8"))["adapters"]
        for name, size in sizes.items():
            _insert(model, name, Bottleneck(size["width"], size["inner"], 0.0, size.get("axis", -1)))
        trained = load_file(run / ADAPTER / WEIGHTS)
        parameters = dict(model.named_parameters())
        if unknown := trained.keys() - parameters.keys():
            raise ValueError(f"{min(unknown)} has no place in {run / BASE}")
        with torch.no_grad():
            for name, tensor in trained.items():
                parameters[name].copy_(tensor)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise StoreError(f"{run / ADAPTER} is damaged ({error}); train the run again") from error


def _sublayers(split: SplitModel, cut: str) -> dict[str, int]:
    """The parts of the remaining blocks that hold matrices and return rows, by name, with the axis of the rows' width.

    Hooks find them while one text goes through, whatever their names: attention and feed-forward in most models.
    """
    names = {id(module): name for name, module in split.model.named_modules()}
    parts = {id(part): part for block in split.blocks_after(cut) for part in _parts(block)}
    inputs, width = split.collate(split.prepare([Sample("0", {"text": "one"})])), split.row_shape[-1]
    tokens = inputs["attention_mask"].shape[1]
    axes: dict[str, int] = {}

    def note(module: nn.Module, args: Any, output: Any) -> None:
        rows = _rows(output)
        if not isinstance(rows, Tensor) or rows.ndim < 2:
            return
        if rows.shape[-1] == width:
            axes[names[id(module)]] = -1
        elif rows.shape[1:] == (width, tokens):
            axes[names[id(module)]] = 1

    handles = [part.register_forward_hook(note) for part in parts.values()]
    try:
        with torch.no_grad():
            split.full(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return axes


def _parts(block: nn.Module) -> list[nn.Module]:
    """A block's children that hold a matrix; if there is only one (ALBERT's groups of a single layer), its children."""
    lists = [child for child in block.children() if isinstance(child, nn.ModuleList)]
    children = [*block.children(), *(part for parts in lists for part in parts)]
    found = [
        child
        for child in children
        if not isinstance(child, nn.ModuleList) and any(parameter.ndim > 1 for parameter in child.parameters())
    ]
    return found if len(found) != 1 else _parts(found[0]) or found


def _insert(model: nn.Module, name: str, adapter: Bottleneck) -> None:
    carrier = model.get_submodule(name)
    adapter.to(next(carrier.parameters()).device)
    carrier.add_module(NAME, adapter)
    carrier.register_forward_hook(_adapted)


def _adapted(module: nn.Module, args: Any, output: Any) -> Any:
    """The part's output with its rows sent through its adapter, if it still has one."""
    adapter = module._modules.get(NAME)
    if adapter is None:
        return output
    if isinstance(output, Tensor):
        return adapter(output)
    return type(output)((adapter(output[0]), *output[1:]))


def _rows(output: Any) -> Any:
    return output[0] if isinstance(output, tuple | list) and output else output


def _carriers(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if NAME in module._modules]
