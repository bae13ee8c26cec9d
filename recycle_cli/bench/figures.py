"""Figures: the median and the spread of interleaved repetitions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from recycle_cli.bench.layout import MEASURES, Comparison, Layout
from recycle_cli.bench.timing import Run, Unavailable


@dataclass(frozen=True)
class Figure:
    """Median, least and greatest of the repetitions. All are None if it could not be measured; `note` says why."""

    median: float | None
    low: float | None
    high: float | None
    repetitions: int
    unit: str
    note: str | None = None


def figure(values: Sequence[float], unit: str) -> Figure:
    """Make a figure of the repetitions' values."""
    return Figure(float(median(values)), float(min(values)), float(max(values)), len(values), unit)


def unknown(unit: str, note: str) -> Figure:
    """Make a figure that could not be measured."""
    return Figure(None, None, None, 0, unit, note)


def higher_is_better(name: str) -> bool:
    """Whether a figure is a rate or a speed-up. Times, memory and bytes are better when lower."""
    last = name.rpartition(".")[2]
    return last.startswith("speedup_vs_") or last.endswith("_per_second")


def unit_of(name: str) -> str:
    """The unit of a figure, from the last part of its name."""
    last = name.rpartition(".")[2]
    if last.startswith(("speedup_vs_", "time_vs_")) or last == "slowdown":
        return "x"
    units = {"samples_per_second": "samples/s", "bytes_per_second": "bytes/s", "evaluation_loss": "", "epochs": ""}
    return units.get(last, "bytes" if last.endswith("bytes") else "s")


def figures_of(layout: Layout, runs: Mapping[str, Sequence[Run] | Unavailable], samples: int) -> dict[str, Figure]:
    """Compute all figures of a layout from its runs. An epoch has `samples` samples."""
    found: dict[str, Figure] = {}
    for variant in layout.variants:
        for measure in MEASURES[layout.verb]:
            found[f"{variant}.{measure}"] = _measured(f"{variant}.{measure}", runs[variant], samples)
    return found | {comparison.name: _compared(comparison, runs) for comparison in layout.comparisons}


def _measured(name: str, runs: Sequence[Run] | Unavailable, samples: int) -> Figure:
    unit = unit_of(name)
    if isinstance(runs, Unavailable):
        return unknown(unit, runs.reason)
    values = [_value(name.rpartition(".")[2], run, samples) for run in runs]
    known = [value for value in values if value is not None]
    return figure(known, unit) if len(known) == len(values) else unknown(unit, "this machine does not tell")


def _value(measure: str, run: Run, samples: int) -> float | None:
    match measure:
        case "seconds":
            return run.seconds
        case "samples_per_second":
            return run.samples / run.seconds
        case "seconds_per_step":
            return None if run.steps is None else run.seconds / run.steps
        case "epoch_seconds":
            return run.seconds / run.samples * samples
        case "bytes_per_second":
            return None if run.bytes is None else run.bytes / run.seconds
        case "bytes":
            return run.bytes
        case "peak_memory_bytes":
            return run.peak_memory
        case _:
            return run.figures.get(measure)


def _compared(comparison: Comparison, runs: Mapping[str, Sequence[Run] | Unavailable]) -> Figure:
    """Compute the ratio within each repetition, where both variants did the same work shortly after one another."""
    names = [comparison.ours, comparison.other, *([comparison.beside] if comparison.beside else [])]
    found: list[list[float]] = []
    for name in names:
        variant = runs[name]
        if isinstance(variant, Unavailable):
            return unknown("x", variant.reason)
        found.append([run.seconds_a_sample for run in variant])
    ratios = [max(others) / own for own, *others in zip(*found, strict=True)]
    return figure(ratios if comparison.kind == "speedup" else [1 / ratio for ratio in ratios], "x")
