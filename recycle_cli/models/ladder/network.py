"""A ladder: a small network that reads a model's hidden states at several depths, and nothing else of the model.

This file needs torch and safetensors alone. A RUN has a copy of it beside the ladder's weights:

    from ladder import Ladder
    ladder = Ladder.load("RUN/ladder").eval()
    outputs = ladder(states, lengths)

Source: Sung et al., LST: Ladder Side-Tuning (NeurIPS 2022). Here it starts from random weights, and has few wide blocks
rather than many thin ones.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

CONFIG, WEIGHTS = "config.json", "model.safetensors"

FORMAT = 2
"""Of a saved ladder. Those of format 1 do not name it; each of their blocks attended, and none had a convolution."""

HEAD_WIDTH = 32
"""Numbers of an attention head, about."""

INNER = 2
"""The inner width of a block's feed-forward layer, in widths of a row."""


class OtherFormatError(Exception):
    """A ladder that another version has saved."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a ladder.

    states   how many hidden states it reads
    inputs   the width of a row of each of them
    width    of a row of its own
    blocks   its blocks
    outputs  of a sample, or of each row if `per_row`
    hidden   whether a layer of tanh stands before the outputs of a sample, as in a classifier of BERT
    dropout  behind attention and feed-forward layers, and before the outputs
    queries  how many weighted means of a sample's rows stand beside the plain one, each by learnt weights
    together whether all states are added up before the first block; else the first begins, and the others join behind
             the blocks, evenly spread
    """

    states: int
    inputs: int
    width: int
    blocks: int
    outputs: int
    per_row: bool = False
    hidden: bool = True
    dropout: float = 0.1
    queries: int = 0
    together: bool = False


class Ladder(nn.Module):
    """S states (B, L, inputs), one tensor or several, with lengths (B,) to outputs (B, C), or (B, L, C) if they are per
    row.

    z_k = W_k (x_k - mean_k) / deviation_k + b_k. If they are added `together`: h = sum z_k, and for each block
    h = block(h). Else h = z_0, and for each block h = block(h), and where state k joins h = g_k h + (1 - g_k) z_k,
    g_k = sigmoid(a_k). Outputs of a sample are made of the mean of its rows, and of their means by weights
    softmax(q_j . h) for each query q_j.

    B samples, L rows of the longest; rows beyond a sample's length may hold anything that is finite.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(shape.states, shape.inputs))
        self.register_buffer("deviation", torch.ones(shape.states, shape.inputs))
        self.down = nn.Parameter(torch.randn(shape.states, shape.inputs, shape.width) / math.sqrt(shape.inputs))
        self.bias = nn.Parameter(torch.zeros(shape.states, shape.width))
        self.gates = nn.Parameter(torch.zeros(0 if shape.together else shape.states - 1))
        last = shape.blocks - 1
        self.blocks = nn.ModuleList(
            Block(shape.width, shape.dropout, attends=number == last) for number in range(shape.blocks)
        )
        self.norm = nn.LayerNorm(shape.width)
        pooled = (1 + shape.queries) * shape.width
        self.queries = nn.Linear(shape.width, shape.queries) if shape.queries else None
        self.dense = nn.Linear(pooled, shape.width) if shape.hidden and not shape.per_row else None
        self.dropout = nn.Dropout(shape.dropout)
        self.output: nn.Module = nn.Linear(shape.width, shape.outputs)

    def forward(self, states: Tensor | Sequence[Tensor], lengths: Tensor) -> Tensor:
        """States and lengths to outputs."""
        inside = torch.arange(states[0].shape[1], device=states[0].device) < lengths[:, None]
        rungs = self._projected(states)
        h = sum(rungs[1:], rungs[0]) if self.shape.together else rungs[0]
        for number, block in enumerate(self.blocks, 1):
            h = block(h, inside[:, None, None, :])
            for k in self._joining(number):
                # In mixed precision the norms give other numbers than the products, as devices differ.
                h = torch.lerp(rungs[k].to(h.dtype), h, torch.sigmoid(self.gates[k - 1]).to(h.dtype))
        h = self.norm(h)
        if not self.shape.per_row:
            h = self._pooled(h, inside[..., None], lengths[:, None])
        if self.dense is not None:
            h = torch.tanh(self.dense(h))
        outputs: Tensor = self.output(self.dropout(h))
        return outputs

    def _projected(self, states: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Each state's rows (B, L, width) in the ladder's width.

        The standardisation is put into the weights, which are far fewer than the rows; but not in mixed precision,
        whose rounding the rows would then meet before they are standardised.
        """
        rungs = []
        for rows, down, bias, mean, deviation in zip(
            states, self.down, self.bias, self.mean, self.deviation, strict=True
        ):
            flat = rows.flatten(0, 1)
            if torch.is_autocast_enabled(rows.device.type):
                flat = (flat - mean) / deviation
            else:
                down = down / deviation[:, None]
                bias = bias - mean @ down
            rungs.append(torch.addmm(bias, flat, down).unflatten(0, rows.shape[:2]))
        return rungs

    def _pooled(self, rows: Tensor, inside: Tensor, lengths: Tensor) -> Tensor:
        """The means of each sample's rows (B, (1 + queries) * width)."""
        mean = (rows * inside).sum(dim=1) / lengths
        if self.queries is None:
            return mean
        weights = self.queries(rows).masked_fill(~inside, float("-inf")).softmax(dim=1)
        means: Tensor = weights.transpose(1, 2).to(rows.dtype) @ rows
        return torch.cat([mean, means.flatten(1).to(mean.dtype)], dim=1)

    def _joining(self, number: int) -> range:
        """The states that join behind the block of this number, counted from 1."""
        rest, blocks = len(self.gates), self.shape.blocks
        return range((number - 1) * rest // blocks + 1, number * rest // blocks + 1)

    def save(self, folder: Path) -> None:
        """Write the sizes and the weights into a folder."""
        sizes = {"format": FORMAT, **asdict(self.shape)}
        (folder / CONFIG).write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
        tensors = {name: one.detach().cpu().contiguous() for name, one in self.state_dict().items()}
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    @classmethod
    def load(cls, folder: str | Path) -> "Ladder":
        """Read a ladder that was saved. Raises OtherFormatError if another version has saved it."""
        sizes = dict(json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8")))
        found = sizes.pop("format", 1)
        if found != FORMAT:
            raise OtherFormatError(f"the ladder has format {found}, and this version reads format {FORMAT}")
        ladder = cls(Shape(**sizes))
        ladder.load_state_dict(load_file(Path(folder) / WEIGHTS))
        return ladder


class Block(nn.Module):
    """Rows (B, L, width) to rows. A GELU of a convolution over each row and its two neighbours is added to it; if the
    block attends, attention over all rows of the sample is added too; the sum is normalised. A feed-forward layer
    follows, added and normalised as in BERT."""

    def __init__(self, width: int, dropout: float, *, attends: bool) -> None:
        super().__init__()
        self.convolution = nn.Linear(3 * width, width)
        self.attention = Attention(width) if attends else None
        self.norm_mixed = nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, INNER * width), nn.Linear(INNER * width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor, inside: Tensor) -> Tensor:
        """`inside` (B, 1, 1, L): which rows are a sample's own."""
        own = rows * inside[:, 0, 0, :, None]
        threes = F.pad(own, (0, 0, 1, 1)).unfold(1, 3, 1).transpose(2, 3)
        rows = own + F.gelu(self.convolution(threes.flatten(2)))
        if self.attention is not None:
            rows = rows + self.dropout(self.attention(rows, inside))
        rows = self.norm_mixed(rows)
        normed: Tensor = self.norm(rows + self.dropout(self.outer(F.gelu(self.inner(rows)))))
        return normed


class Attention(nn.Module):
    """Rows (B, L, width) to rows, each a mean over all rows of its sample, by several heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = next(count for count in range(max(1, width // HEAD_WIDTH), 0, -1) if width % count == 0)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, rows: Tensor, inside: Tensor) -> Tensor:
        """`inside` (B, 1, 1, L): which rows are a sample's own."""
        apart = self.queries_keys_values(rows).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(apart[0], apart[1], apart[2], attn_mask=inside)
        output: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return output
