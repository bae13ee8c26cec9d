"""A picture of a training whose layers freeze: the cut, the loss, and the seconds of each epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recycle_cli.disk import replacing
from recycle_cli.errors import StorageError

_PHASES = {
    "read": "#9aa5b1",
    "advance": "#e09f3e",
    "write": "#540b0e",
    "forward": "#0b6e4f",
    "backward": "#3b8ea5",
    "step": "#b56576",
}


def draw(path: str, cuts: Sequence[str], epochs: Sequence[Mapping[str, Any]]) -> None:
    """Draw a training into a file. `cuts`: all that its head has; `epochs`: as its report has them.

    Raises StorageError if the file cannot be written.
    """
    from matplotlib.figure import Figure

    picture = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = picture.subplots(1, 3)
    numbers = [one["epoch"] for one in epochs]
    for name, label, style in (("frozen_cut", "frozen", "-"), ("read_cut", "read from", "--")):
        left.step(numbers, [cuts.index(one[name]) for one in epochs], style, where="mid", label=label, color="#0b6e4f")
    left.set_yticks(range(len(cuts)), cuts)
    left.set_title("Cut", fontsize=10)
    left.legend(fontsize=8, frameon=False)
    losses = {"training": [one["epoch_loss"] for one in epochs]}
    if all((one["metrics"] or {}).get("loss") is not None for one in epochs):
        losses["evaluation"] = [one["metrics"]["loss"] for one in epochs]
    for name, values in losses.items():
        known = [(number, value) for number, value in zip(numbers, values, strict=True) if value is not None]
        middle.plot(*zip(*known, strict=True), "o-" if name == "training" else "s--", label=name, color="#9e2a2b")
    middle.set_title("Loss", fontsize=10)
    middle.legend(fontsize=8, frameon=False)
    below = [0.0] * len(numbers)
    for name, color in _PHASES.items():
        seconds = [one["phases"].get(name, 0.0) for one in epochs]
        right.bar(numbers, seconds, bottom=below, label=name, color=color)
        below = [one + more for one, more in zip(below, seconds, strict=True)]
    right.set_title("Seconds an epoch", fontsize=10)
    right.legend(fontsize=8, frameon=False, ncols=2)
    for axes in (left, middle, right):
        axes.set_xlabel("epoch")
        axes.set_xticks(numbers if len(numbers) <= 12 else numbers[:: len(numbers) // 10])
        axes.spines[["top", "right"]].set_visible(False)
    try:
        with replacing(Path(path)) as partial:
            picture.savefig(partial, dpi=150, format=Path(path).suffix[1:])
    except OSError as error:
        raise StorageError(f"--freeze-plot {path} cannot be written ({error.strerror or error})") from error
