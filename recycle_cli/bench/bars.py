"""Bars that a user sets, such as `finetune.speedup_vs_full>=1.8`: parsed before measuring, checked after."""

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from recycle_cli.bench.figures import Figure
from recycle_cli.errors import BarError, UsageError

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}

_BAR = re.compile(r"\s*([A-Za-z0-9_.%]+)\s*(>=|<=|>|<)\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*")


@dataclass(frozen=True)
class BarSetting:
    """A figure's name, a relation and a value; `text` is the expression as the user wrote it."""

    text: str
    figure: str
    relation: str
    value: float


def parse_bar(text: str, known: Collection[str]) -> BarSetting:
    """Parse a bar. Raises UsageError if it is malformed or names a figure that is not measured."""
    found = _BAR.fullmatch(text)
    if found is None:
        raise UsageError(
            f"--require {text!r}: expected a figure, one of >= <= > <, and a number, such as "
            "'finetune.speedup_vs_full>=1.8'"
        )
    name = found[1]
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(near)}" if near else ""
        raise UsageError(f"--require {text!r}: {name} is not measured by this bench{hint} (--json lists all figures)")
    return BarSetting(text, name, found[2], float(found[3]))


def check_bars(figures: Mapping[str, Figure], bars: Sequence[BarSetting]) -> None:
    """Raise BarError, naming figure, bar and value, if a median misses its bar or could not be measured."""
    missed = [_missed(bar, figures[bar.figure]) for bar in bars]
    if messages := [message for message in missed if message is not None]:
        raise BarError("; ".join(messages))


def _missed(bar: BarSetting, figure: Figure) -> str | None:
    if figure.median is None:
        return f"{bar.figure} could not be measured ({figure.note}); {bar.relation} {bar.value:g} was required"
    if _OPERATORS[bar.relation](figure.median, bar.value):
        return None
    return f"{bar.figure} is {figure.median:.4g}; {bar.relation} {bar.value:g} was required"
