"""Plot a bench: samples a second at each cut, and the total time after each epoch."""

from collections.abc import Mapping
from typing import Any

from recycle_cli.bench.figures import Figure
from recycle_cli.bench.layout import prefix
from recycle_cli.bench.run import Bench
from recycle_cli.errors import StorageError, UsageError
from recycle_cli.reports import check_picture, counted

EPOCHS = 10

_COLOURS = {
    "store": "#0b6e4f",
    "frozen": "#e09f3e",
    "full": "#9e2a2b",
    "trainer_full": "#540b0e",
    "trainer_frozen": "#b56576",
    "map_trainer": "#6d6875",
    "bare_head": "#9aa5b1",
}
_LABELS = {
    "store": "recycle, from the store",
    "frozen": "frozen, without a store",
    "full": "full fine-tuning",
    "trainer_full": "Trainer, full",
    "trainer_frozen": "Trainer, frozen",
    "map_trainer": "datasets.map + Trainer (filled as fast)",
    "bare_head": "bare head (the limit)",
}


def check_plot(path: str, verbs: tuple[str, ...]) -> None:
    """Raise UsageError, before anything is measured, if the plot could not be drawn."""
    if "finetune" not in verbs:
        raise UsageError("--plot shows training; take `recycle bench finetune` or `recycle bench all`")
    check_picture("plot", path)


def plot(bench: Bench, path: str) -> None:
    """Plot a bench that measured `finetune`. Raises StorageError if the file cannot be written."""
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(12, 5), layout="constrained")
    left, right = picture.subplots(1, 2)
    _throughput(left, bench.figures, bench.settings["cuts"])
    _cost(right, bench.figures)
    settings = bench.settings
    picture.suptitle(
        f"{settings['model']}, {counted(settings['records'], 'record')}, {bench.machine['processor']}", fontsize=10
    )
    try:
        picture.savefig(path, dpi=150)
    except OSError as error:
        raise StorageError(f"--plot {path} cannot be written ({error.strerror or error})") from error


def _throughput(axes: Any, figures: Mapping[str, Figure], cuts: list[str]) -> None:
    """Draw training samples a second at each cut, with and without the store, as bars with their spread."""
    names = ("full", "frozen", "store", "bare_head")
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        for at, cut in enumerate(cuts):
            group = "finetune" if name == "full" else prefix("finetune", cut, cuts)
            found = figures[f"{group}.{name}.samples_per_second"]
            if found.median is None or found.low is None or found.high is None:
                continue
            axes.bar(
                at + (place - (len(names) - 1) / 2) * width,
                found.median,
                width * 0.92,
                color=_COLOURS[name],
                label=_LABELS[name] if at == 0 else None,
                yerr=[[found.median - found.low], [found.high - found.median]],
                error_kw={"elinewidth": 0.8, "capsize": 2},
            )
    axes.set_xticks(range(len(cuts)), [f"cut {cut}" for cut in cuts])
    axes.set_ylabel("training samples a second")
    _finish(axes, "Throughput (median, least to greatest)")


def _cost(axes: Any, figures: Mapping[str, Figure]) -> None:
    """Draw the seconds spent after each epoch at the first cut. The store's line starts at the time to fill it."""
    for name in ("trainer_full", "full", "trainer_frozen", "map_trainer", "frozen", "store"):
        epoch = figures[f"finetune.{name}.epoch_seconds"].median
        if epoch is None:
            continue
        start = _filling(figures) if name in ("store", "map_trainer") else 0.0
        spent = [start + epoch * count for count in range(EPOCHS + 1)]
        style = "-" if name in ("store", "full", "frozen") else "--"
        axes.plot(range(EPOCHS + 1), spent, style, color=_COLOURS[name], label=_LABELS[name])
    axes.set_xlabel("epochs")
    axes.set_ylabel("seconds in all, precompute included")
    axes.set_xlim(0, EPOCHS)
    axes.set_ylim(0)
    _finish(axes, "Cost of training")


def _filling(figures: Mapping[str, Figure]) -> float:
    """Seconds that precompute took, or 0 if the bench did not measure it."""
    found = figures.get("precompute.recycle.seconds")
    return found.median if found is not None and found.median is not None else 0.0


def _finish(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
