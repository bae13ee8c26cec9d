"""Where a store holds a sample: every copy of it, with its rows."""

from typing import Any

import numpy as np

from recycle_cli.keys import Bytes16
from recycle_cli.store.index import high_half
from recycle_cli.store.store import Store


def find(store: Store, key: Bytes16, digest: Bytes16) -> dict[str, Any]:
    """Look for one sample by its key and digest, (1, 16) each.

    Returns {store, key, held, copies: [{segment, number, first_row, end_row, rows}], cuts: {name: row shape}}; `number`
    counts within the segment, and rows from `first_row` to before `end_row` are its own. Raises DamageError if the key
    is stored with another digest.
    """
    held = bool((store.lookup(key, digest) >= 0)[0])
    copies = []
    for segment in store.by_age().list if held else []:
        for number in np.flatnonzero(high_half(segment.keys) == high_half(key)).tolist():
            if segment.keys[number].tobytes() == key.tobytes():
                start, stop = segment.bounds[number], segment.bounds[number + 1]
                place = {"segment": segment.id, "number": number, "first_row": start, "end_row": stop}
                copies.append({**place, "rows": stop - start})
    return {
        "store": store.path,
        "key": key.tobytes().hex(),
        "held": held,
        "copies": copies,
        "cuts": {cut: list(store.row_shape(cut)) for cut in store.recipe.cuts} if held else {},
    }
