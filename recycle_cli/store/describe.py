"""Describe a store as plain data."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from recycle_cli.store.layout import FORMAT_VERSION
from recycle_cli.store.store import Store


def info(path: str, *, segments: bool = False) -> dict[str, Any]:
    """Return the recipe, counts, sizes, running writers and leftovers of dead ones; with `segments`, each segment too.

    `samples` counts unique samples; `duplicates` counts the further copies, which `gc` removes; `origins`: how the
    samples were made of records. Sizes are in bytes.
    """
    store = Store.open(path)
    at_work = store.place.unfinished()
    held = store.segments
    stored = sum(segment.summary.samples for segment in held)
    described: dict[str, Any] = {
        "store": path,
        "format": FORMAT_VERSION,
        "fingerprint": store.fingerprint,
        "recipe": store.recipe.to_json(),
        "provenance": store.provenance,
        "samples": len(store),
        "duplicates": stored - len(store),
        "rows": store.rows,
        "bytes": store.bytes,
        "segments": len(held),
        "origins": sorted(store.origins),
        "codecs": dict(Counter(segment.codec for segment in held)),
        "cuts": {cut: {"row_shape": list(store.row_shape(cut)) if held else None} for cut in store.recipe.cuts},
        "writers": [asdict(writer) for writer in at_work if writer.alive],
        "leftovers": [asdict(writer) for writer in at_work if not writer.alive],
        "set_aside": store.place.aside(),
    }
    if segments:
        described["segment_list"] = [asdict(segment.summary) | {"codec": segment.codec} for segment in held]
    return described
