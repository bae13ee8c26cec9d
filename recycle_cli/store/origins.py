"""Origins: how the samples of a segment were made of records. They tell which samples a removed record has left.

An origin is a text: `record` for the record as it is, `view NAME` for the augmented view of an image with that field
`view`, the options that cut a record into the samples of a task (`--task question-answering --stride 64`), or `?` if
the writer did not say.
"""

from collections.abc import Iterable, Mapping
from typing import Any

RECORD, VIEW, UNKNOWN = "record", "view ", "?"

FIELD = "origins"
"""In `attributes.recycle` of a segment: a sorted list of its origins."""

Origins = frozenset[str]

NOT_SAID: Origins = frozenset({UNKNOWN})


def origins_in(record: Mapping[str, Any]) -> Origins:
    """The origins in the record of a segment; `?` if there are none, as in segments of older versions."""
    found = record.get(FIELD)
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        return NOT_SAID
    return frozenset(found)


def views_in(origins: Iterable[str]) -> list[str]:
    """The values of the field `view` that samples of these origins have."""
    return sorted(one.removeprefix(VIEW) for one in origins if one.startswith(VIEW))
