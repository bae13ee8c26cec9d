"""What a user requires of figures, such as `macro_f1>=0.8`: parsed before they are measured, checked after."""

import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from recycle_cli.errors import BarError, UsageError

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}

_FORM = re.compile(r"\s*([A-Za-z0-9_.%-]+)\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*")


@dataclass(frozen=True)
class Requirement:
    """A figure's name, a relation and a value."""

    figure: str
    relation: str
    value: float

    def missed(self, found: float | None, why_none: str = "") -> str | None:
        """What to tell of a figure that misses it or could not be measured (None, and why); None if it is met."""
        if found is None:
            reason = f" ({why_none})" if why_none else ""
            return f"{self.figure} could not be measured{reason}; {self._asked} was required"
        met = _OPERATORS[self.relation]
        if met(found, self.value):
            return None
        # With as many digits as it takes to see it: 0.79999 is not 0.8.
        told = next(text for digits in range(4, 18) if not met(float(text := f"{found:.{digits}g}"), self.value))
        return f"{self.figure} is {told}; {self._asked} was required"

    @property
    def _asked(self) -> str:
        return f"{self.relation} {self.value:g}"


def parse_requirement(text: str, known: Collection[str] | None = None, where: str = "here") -> Requirement:
    """Parse what is required. Raises UsageError if it is malformed, or names a figure that is not measured `where`;
    `known` are those that are."""
    found = _FORM.fullmatch(text)
    example = next(iter(known or ()), "macro_f1")
    if found is None:
        raise UsageError(
            f"--require {text!r}: expected a figure, one of >= <= > <, and a number, such as '{example}>=0.8'"
        )
    name = found[1]
    if known is not None and name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(near)}" if near else ""
        raise UsageError(f"--require {text!r}: {name} is not measured {where}{hint}")
    return Requirement(name, found[2], float(found[3]))


def check_requirements(
    required: Iterable[Requirement], figures: Mapping[str, float | None], why_none: Mapping[str, str] | None = None
) -> None:
    """Raise BarError naming each figure that misses what is required of it, or could not be measured."""
    missed = (one.missed(figures[one.figure], (why_none or {}).get(one.figure, "")) for one in required)
    if messages := [message for message in missed if message is not None]:
        raise BarError("; ".join(messages))
