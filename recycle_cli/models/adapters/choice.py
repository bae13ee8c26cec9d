"""Which layers of a head are adapted."""

from collections.abc import Sequence

from recycle_cli.errors import UsageError
from recycle_cli.settings import AdapterSettings


def chosen(names: Sequence[str], cut: str, settings: AdapterSettings) -> list[str]:
    """The layers whose names end as the settings say, or all of them if they say nothing.

    Raises UsageError if there is no layer, or an ending fits none.
    """
    if not names:
        raise UsageError(
            f"--adapter {settings.kind}: at cut {cut} the head has no pretrained layer to adapt; take a lower cut"
        )
    for ending in settings.layers:
        if not any(_ends(name, ending) for name in names):
            there = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))
            raise UsageError(f"--adapter-layers {ending}: no layer's name ends so; those of the head end in {there}")
    return [name for name in names if not settings.layers or any(_ends(name, ending) for ending in settings.layers)]


def _ends(name: str, ending: str) -> bool:
    return f".{name}".endswith(f".{ending}")
