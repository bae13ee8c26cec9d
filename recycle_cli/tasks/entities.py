"""Entities in the tags of words, and their precision, recall and F1, by the definitions of `seqeval`.

`seqeval` itself is not used: its last release is of 2020 and is built from source, and it warns of every tag without a
prefix. The tests compare with it.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"
PREFIXES = frozenset("BIES")


class Entity(NamedTuple):
    """Words of one entity: from `first` to `last`, inclusive."""

    kind: str
    first: int
    last: int


def taken_apart(tag: str) -> tuple[str, str]:
    """Prefix and kind: B-PER is B, PER. A bare prefix has the kind `_`, as in seqeval; a tag of no scheme, as in data
    without prefixes, is inside (I) of its own name."""
    if tag == OUTSIDE:
        return OUTSIDE, "_"
    if tag in PREFIXES:
        return tag, "_"
    prefix, dash, kind = tag.partition("-")
    return (prefix, kind or "_") if dash and prefix in PREFIXES else ("I", tag)


def entities_in(tags: Sequence[str]) -> list[Entity]:
    """The entities in the tags of a sentence, in BIO, BIOES, IO or a mixture.

    One begins at a B or an S, at anything that follows another kind or is not inside an entity, and behind an E or an
    S; it ends at an E or an S, and before the next one or an O. So an I without a B begins an entity.
    """
    found: list[Entity] = []
    begun: tuple[int, str] | None = None
    closed = False
    for place, (prefix, kind) in enumerate(map(taken_apart, tags)):
        goes_on = begun is not None and not closed and prefix in ("I", "E") and kind == begun[1]
        if begun is not None and not goes_on:
            found.append(Entity(begun[1], begun[0], place - 1))
            begun = None
        if prefix != OUTSIDE and begun is None:
            begun = (place, kind)
        closed = prefix in ("E", "S")
    if begun is not None:
        found.append(Entity(begun[1], begun[0], len(tags) - 1))
    return found


def entity_figures(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> dict[str, float]:
    """Micro-averaged precision, recall and F1 of entities over pairs of found and true tags of a sentence; 0 if there
    is nothing to divide by."""
    hits = found = wanted = 0
    for own, true in pairs:
        predicted, expected = set(entities_in(own)), set(entities_in(true))
        hits += len(predicted & expected)
        found += len(predicted)
        wanted += len(expected)
    precision, recall = hits / max(1, found), hits / max(1, wanted)
    total = precision + recall
    return {"f1": 2 * precision * recall / total if total else 0.0, "precision": precision, "recall": recall}
