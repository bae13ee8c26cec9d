"""A probe: a linear head, or one with a hidden layer, on pooled vectors of a model's hidden states.

This file needs torch and safetensors alone. A RUN has a copy of it beside the probe's weights:

    from probe import Probe
    probe = Probe.load("RUN/pooled").eval()
    outputs = probe(probe.features(states, lengths))
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def _inside(rows: Tensor, lengths: Tensor) -> Tensor:
    return (torch.arange(rows.shape[1], device=rows.device) < lengths[:, None])[..., None]


def _mean(rows: Tensor, lengths: Tensor) -> Tensor:
    return torch.where(_inside(rows, lengths), rows, 0).sum(dim=1) / lengths[:, None]


def _largest(rows: Tensor, lengths: Tensor) -> Tensor:
    return torch.where(_inside(rows, lengths), rows, -torch.inf).amax(dim=1)


def _first(rows: Tensor, lengths: Tensor) -> Tensor:
    return rows[:, 0]


def _last(rows: Tensor, lengths: Tensor) -> Tensor:
    return rows[torch.arange(len(rows), device=rows.device), lengths - 1]


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": _mean, "cls": _first, "max": _largest, "last": _last}
"""Rows (B, L, width) of samples of lengths (B,) to vectors (B, width)."""


def pooled(rows: Tensor, lengths: Tensor, poolings: Sequence[str]) -> Tensor:
    """Rows (B, L, width) of samples of lengths (B,) to one vector for each pooling, (B, poolings, width)."""
    return torch.stack([WAYS[name](rows, lengths) for name in poolings], dim=1)


@dataclass(frozen=True)
class ProbeShape:
    """The sizes of a probe.

    widths    of a row of each state that it reads, the first state's first
    poolings  which vectors it reads of each state
    outputs   of a sample
    hidden    the width of the layer between the vectors and the outputs; 0 for none
    dropout   before the outputs of a hidden layer, and on what it is given
    """

    widths: tuple[int, ...]
    poolings: tuple[str, ...]
    outputs: int
    hidden: int = 0
    dropout: float = 0.0

    @property
    def sizes(self) -> list[int]:
        """Numbers that it reads of each state of a sample."""
        return [width * len(self.poolings) for width in self.widths]

    @property
    def inputs(self) -> int:
        """Numbers that it reads of a sample."""
        return sum(self.sizes)


class Probe(nn.Module):
    """Features (B, inputs) to outputs (B, outputs).

    y = W (x - mean) / deviation + b; with a hidden layer y = W gelu(V (x - mean) / deviation + c) + b. The features x
    of a sample are the vectors of its first state, one pooling after another, then those of the next.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: ProbeShape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(shape.inputs))
        self.register_buffer("deviation", torch.ones(shape.inputs))
        self.dropout = nn.Dropout(shape.dropout)
        self.hidden = nn.Linear(shape.inputs, shape.hidden) if shape.hidden else None
        self.output: nn.Module = nn.Linear(shape.hidden or shape.inputs, shape.outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Features to outputs."""
        x = (features - self.mean) / self.deviation
        if self.hidden is not None:
            x = self.dropout(nn.functional.gelu(self.hidden(self.dropout(x))))
        outputs: Tensor = self.output(x)
        return outputs

    def features(self, states: Sequence[Tensor], lengths: Tensor) -> Tensor:
        """Rows (B, L, width) of each state, of samples of lengths (B,), to features (B, inputs)."""
        return torch.cat([pooled(rows, lengths, self.shape.poolings).flatten(1) for rows in states], dim=1)

    def save(self, folder: Path) -> None:
        """Write the sizes and the weights into a folder."""
        (folder / CONFIG).write_text(json.dumps(asdict(self.shape), indent=2) + "\n", encoding="utf-8")
        tensors = {name: one.detach().cpu().contiguous() for name, one in self.state_dict().items()}
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    @classmethod
    def load(cls, folder: str | Path) -> "Probe":
        """Read a probe that was saved."""
        kept = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
        shape = ProbeShape(**{**kept, "widths": tuple(kept["widths"]), "poolings": tuple(kept["poolings"])})
        probe = cls(shape)
        probe.load_state_dict(load_file(Path(folder) / WEIGHTS))
        return probe
