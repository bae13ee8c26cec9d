"""Activations to stored rows and back."""

import torch

from recycle_cli.errors import DataError
from recycle_cli.store import EncodedRows, decode, encode
from recycle_cli.trunk.stream import Indices

_NARROW = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""Dtypes to which the device rounds, so that half the bytes leave it."""


def rows_of(activations: torch.Tensor, lengths: Indices, dtype: str) -> EncodedRows:
    """Ragged rows in the stored dtype from padded activations (B, L, *shape): the first `lengths[i]` rows of each.

    Raises DataError, naming the value and the remedy, if float16 cannot hold a value or a value is not finite.
    """
    steps = torch.arange(activations.shape[1], device=activations.device)
    inside = steps[None, :] < torch.from_numpy(lengths).to(activations.device)[:, None]
    rows = activations[inside]
    narrow = rows.to(_NARROW[dtype]) if dtype in _NARROW else None
    if narrow is None or not torch.isfinite(narrow).all():  # `encode` names the value that is not finite
        return encode(rows.float().cpu().numpy(), dtype)
    bits = narrow.view(torch.uint16) if dtype == "bfloat16" else narrow
    return EncodedRows(bits.cpu().numpy(), None)


def restored(rows: EncodedRows, lengths: Indices, dtype: str) -> torch.Tensor:
    """Padded float32 activations (B, L, *shape) from ragged stored rows. Hits and misses reach the head alike."""
    values = torch.from_numpy(decode(rows.values, rows.scales, dtype, rows.row_shape))
    pieces = list(torch.split(values, lengths.tolist()))
    return torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)


def check_lengths(lengths: Indices, activations: torch.Tensor) -> None:
    """Raise DataError if the trunk gave fewer rows than the samples have: the model shortens its sequence."""
    if activations.shape[1] < int(lengths.max()):
        raise DataError(
            f"the trunk gave {activations.shape[1]} rows for {int(lengths.max())} tokens; "
            "this model shortens its sequence and cannot be recycled"
        )
