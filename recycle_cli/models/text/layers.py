"""Every cut of a text model: its share of the work and the bytes of its rows."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from recycle_cli.errors import UsageError
from recycle_cli.models.eval_mode import evaluating
from recycle_cli.models.forwards import watching
from recycle_cli.models.hub import quiet
from recycle_cli.models.layers import Layer, bytes_per_sample, pooled_bytes
from recycle_cli.models.pooling import USUAL_POOLINGS
from recycle_cli.models.text.engine import Engine
from recycle_cli.models.text.load import Loaded
from recycle_cli.models.text.ownership import Ownership
from recycle_cli.models.text.split import ownership, proved_states, uncut
from recycle_cli.recipe import DTYPES


def layers(loaded: Loaded, *, length: int, dtype: str = "float16") -> list[Layer]:
    """Every cut from the state before the first block on, counted on one text of `length` tokens and proved on a few.

    FLOPs are those of matrix products and convolutions in a forward pass. Raises as `split` does.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    with quiet():
        engine, batch, first = uncut(loaded, length)
        found, cuts = proved_states(engine, batch, first, range(len(engine.blocks) + 1))
        engine = found.engine
        flops = trunk_flops(engine, length)
        owned = [ownership(found, batch, cut) for cut in cuts]
    return [_layer(engine, one, flops[one.cut] / flops[-1], length, dtype) for one in owned]


def trunk_flops(engine: Engine, length: int) -> list[int]:
    """FLOPs of one forward pass of one text up to each cut from 0 on, and last those of the whole model."""
    batch = engine.inputs.stand_in(torch.ones(1, length, dtype=torch.int64))
    counter = FlopCounterMode(display=False)
    counts: list[int] = []

    def note(*_: Any) -> None:
        counts.append(counter.get_total_flops())

    # Fused attention kernels hide their matrix products from the counter on some machines; plain ones do not.
    with ExitStack() as stack, evaluating(engine.model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        for block in engine.blocks:
            stack.enter_context(watching(block.parts[0].module, note))
        stack.enter_context(watching(engine.blocks[-1].parts[-1].module, after=note))
        engine.full(batch)
    return [*counts, counter.get_total_flops()]


def _layer(engine: Engine, owned: Ownership, flops_share: float, length: int, dtype: str) -> Layer:
    shape = (engine.blocks[0].width,)
    trunk, head = _size(owned.trunk_parameters()), _size(owned.head_parameters())
    return Layer(
        cut=str(owned.cut),
        share=owned.cut / len(engine.blocks),
        flops_share=flops_share,
        parameter_share=trunk / (trunk + head),
        row_shape=shape,
        bytes_per_sample=bytes_per_sample(shape, length, dtype),
        pooled_bytes=pooled_bytes(shape[0], USUAL_POOLINGS["text"], dtype),
    )


def _size(parameters: Sequence[tuple[str, Tensor]]) -> int:
    return sum(parameter.numel() for _, parameter in parameters)
