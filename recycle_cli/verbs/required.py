"""What a user requires of the figures of finetune and predict: refused before the work, or judged after it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from recycle_cli.errors import BarError
from recycle_cli.requirements import Requirement, check_requirements, parse_requirement


def refuse_unmeasured(
    require: Sequence[str], metrics: Sequence[str], report: type, heads: Sequence[str] = (), where: str = "here"
) -> None:
    """Raise UsageError if something is required that is neither a metric nor a number of the report.

    `heads`: names of heads, one of which may stand before a figure's, as in `plain.macro_f1`. `where`: what measures
    no more than that.
    """
    own = (*metrics, *(one.name for one in fields(report) if one.type in (int, float)))
    known = (*own, *(f"{head}.{name}" for head in heads for name in own))
    for text in require:
        parse_requirement(text, known, where)


def check_figures(report: Any, require: Sequence[str], why_none: str = "") -> None:
    """Raise BarError, with the report, for each figure that misses what is required; of several heads each must meet
    what names none of them. `why_none`: why there are no metrics."""
    figures = dict(_figures(asdict(report)))
    heads = [head["name"] for head in getattr(report, "heads", ())]
    required = [each for text in require for each in _of_each(parse_requirement(text), heads)]
    found = {one.figure: figures.get(one.figure) for one in required}
    try:
        check_requirements(required, found, dict.fromkeys(found, why_none))
    except BarError as missed:
        raise BarError(str(missed), report) from None


def _of_each(one: Requirement, heads: Sequence[str]) -> list[Requirement]:
    if not heads or any(one.figure.startswith(f"{head}.") for head in heads):
        return [one]
    return [replace(one, figure=f"{head}.{one.figure}") for head in heads]


def _figures(report: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a report and its metrics; those of a head follow its name."""
    for name, value in {**report, **(report.get("metrics") or {})}.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{before}{name}", value
    for head in report.get("heads", ()):
        yield from _figures(head, f"{head['name']}.")
