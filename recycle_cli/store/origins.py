"""How the samples of a segment were made of records. Whoever wants a record removed knows by it what else to look for.

An origin is one of the texts `record` (the record as it is), `view NAME` (the field `view` of an augmented view of an
image), the options that cut a record into the samples of a task, such as `--task question-answering --stride 64`, and
`?` for a writer that does not say.
"""

from collections.abc import Iterable, Mapping
from typing import Any

RECORD, VIEW, UNKNOWN = "record", "view ", "?"

FIELD = "origins"
"""In `attributes.recycle` of a segment: a sorted list of its origins."""

Origins = frozenset[str]

NOT_SAID: Origins = frozenset({UNKNOWN})


def origins_in(record: Mapping[str, Any]) -> Origins:
    """The origins that a segment was sealed with; `?` for one of a writer that keeps none, as older versions."""
    found = record.get(FIELD)
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        return NOT_SAID
    return frozenset(found)


def views_in(origins: Iterable[str]) -> list[str]:
    """The values of the field `view` that samples of these origins have."""
    return sorted(one.removeprefix(VIEW) for one in origins if one.startswith(VIEW))
