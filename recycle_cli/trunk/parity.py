"""Proof that stored rows are what the trunk gives now: the last guard against training on a stale activation."""

from collections.abc import Sequence

import numpy as np

from recycle_cli.errors import MismatchError
from recycle_cli.keys import Sample, keys_of
from recycle_cli.models import SplitModel
from recycle_cli.runtime.devices import autocast, device_holding, to_device
from recycle_cli.store import Store, decode
from recycle_cli.trunk.stream import trunk_batches

PROBES = 8
"""Samples to check: few, since each costs a pass of the trunk."""

TOLERANCE = {"float32": 2e-4, "float16": 2e-3, "bfloat16": 1e-2, "int8": 5e-2, "int4": 0.25}
"""Relative L2 error a sample. Rounding alone gives 0.0002 (float16), 0.0017 (bfloat16), 0.013 (int8) and 0.08 (int4, at
most 0.21 whatever the rows are)."""


def check_parity(store: Store, split: SplitModel, cuts: Sequence[str], samples: Sequence[Sample]) -> None:
    """Run the trunk on a few samples and compare with their stored rows at each of the cuts. Raises MismatchError if
    they differ."""
    device = device_holding(split.model)
    limit = max(TOLERANCE[store.recipe.dtype], 2e-2 if store.recipe.precision != "float32" else 0.0)
    held = [sample for sample in samples if store.lookup(*keys_of([sample]))[0] >= 0]
    for batch in trunk_batches(held, split.preprocessor, batch_tokens=1):
        (sample,) = (held[place] for place in batch.members)
        position = store.lookup(*keys_of([sample]))
        with autocast(device, store.recipe.precision):
            rows = split.trunk(to_device(batch.inputs, device))
        for cut in cuts:
            now = rows[cut][0, : split.stored_lengths(batch.lengths)[0]].float().cpu().numpy()
            values, scales = store.gather_rows(cut, position)
            then = decode(values, scales, store.recipe.dtype, store.row_shape(cut))
            comparable = then.shape == now.shape and np.isfinite(then).all()
            error = _relative(then, now) if comparable else np.inf
            if not error <= limit:
                raise MismatchError(
                    f"{store.path}: the stored rows of record {sample.id} are not what the trunk gives now (relative "
                    f"error {error:.2g} at cut {cut}, at most {limit:.2g} expected); run `recycle store verify`, or "
                    "precompute a new store (--no-parity-check goes on all the same)"
                )


def _relative(stored: np.ndarray, computed: np.ndarray) -> float:
    return float(np.linalg.norm(stored - computed)) / max(float(np.linalg.norm(computed)), 1e-12)
