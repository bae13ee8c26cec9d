"""Values as people read them."""

from typing import Any


def printable(text: str) -> str:
    """The text without marks that would steer a terminal: names in stores and corpora are other people's."""
    return "".join(mark if mark.isprintable() or mark in "\n\t" else "\N{REPLACEMENT CHARACTER}" for mark in text)


def is_number(value: Any) -> bool:
    """Whether it is a number; a flag is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def human(name: str, value: Any) -> str:
    """A value as people read it: bytes in binary units, seconds to a fitting digit, shares as percentages."""
    words = name.replace(" ", "_").split("_")
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(human(name, item) for item in value)
    if not is_number(value):
        return printable(str(value))
    if "share" in words:
        return f"{value:.1%}"
    if "bytes" in words and words[-1] != "second":
        return size(value)
    if words[-1] == "seconds":
        return f"{value:,.3g} s" if value < 100 else f"{value:,.0f} s"
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 10:
        return f"{value:,.1f}"
    return f"{value:,.4f}" if abs(value) >= 1e-3 or not value else f"{value:.3g}"


def size(count: float) -> str:
    """A number of bytes in binary units, such as `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def in_line(text: str) -> str:
    """The text as `printable` has it, in one line."""
    return printable(" ".join(text.splitlines()))


def counted(count: int, noun: str) -> str:
    """`1 record`, `2,000 records`; the noun takes an s in the plural."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def clock(seconds: float) -> str:
    """A time as `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
