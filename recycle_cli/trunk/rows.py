"""Activations to stored rows and back."""

import torch

from recycle_cli.errors import DataError
from recycle_cli.store import Encoded, decode, encode
from recycle_cli.trunk.stream import Indices, TrunkBatch

_TORCH_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def rows_of(activations: torch.Tensor, lengths: Indices, dtype: str) -> Encoded:
    """Ragged rows in the stored dtype from padded activations (B, L, *shape): the first `lengths[i]` rows of each.

    Raises DataError, naming the value and the remedy, if float16 cannot hold a value or a value is not finite.
    """
    steps = torch.arange(activations.shape[1], device=activations.device)
    inside = steps[None, :] < torch.from_numpy(lengths).to(activations.device)[:, None]
    rows = activations[inside]
    if dtype not in ("float16", "bfloat16"):
        return encode(rows.float().cpu().numpy(), dtype)
    narrow = rows.to(_TORCH_DTYPES[dtype])
    if not torch.isfinite(narrow).all():
        return encode(rows.float().cpu().numpy(), dtype)
    bits = narrow.view(torch.uint16) if dtype == "bfloat16" else narrow
    return Encoded(bits.cpu().numpy(), None)


def restored(rows: Encoded, lengths: Indices, dtype: str) -> torch.Tensor:
    """Padded float32 activations (B, L, *shape) from ragged stored rows: what the head is given, hit or miss."""
    values = torch.from_numpy(decode(rows.values, rows.scales, dtype, rows.row_shape))
    pieces = list(torch.split(values, lengths.tolist()))
    return torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)


def check_lengths(batch: TrunkBatch, activations: torch.Tensor) -> None:
    """Raise DataError if the trunk gave fewer rows than the samples have: the model shortens its sequence."""
    if activations.shape[1] < int(batch.lengths.max()):
        raise DataError(
            f"the trunk gave {activations.shape[1]} rows for {int(batch.lengths.max())} tokens; "
            "this model shortens its sequence and cannot be recycled"
        )
