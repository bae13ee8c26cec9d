"""Show a bench to people: for each verb a table of variants and one of comparisons."""

from collections.abc import Iterator, Mapping
from typing import Any

from recycle_cli.bench.compare import Worse
from recycle_cli.bench.figures import Figure
from recycle_cli.bench.layout import MEASURES, Layout, layout
from recycle_cli.bench.run import Bench
from recycle_cli.reports import counted, say, show_rows, size

_NOTES = {"time": "1 is perfect", "speedup": "higher is better", "slowdown": "1 is as fast as alone"}


def show_bench(bench: Bench) -> None:
    """Print the tables to stderr."""
    for verb in bench.settings["verbs"]:
        one = layout(verb, bench.settings["cuts"], images=bench.settings["image_size"] is not None)
        show_rows(f"{verb}: {_subject(bench.settings)}", list(_variants(one, bench.figures)))
        show_rows(f"{verb} compared (medians of the ratios)", list(_comparisons(one, bench.figures)))
    machine = bench.machine
    say(f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, {machine['device']}")
    if machine["thread_settings"]:
        say(", ".join(f"{name}={value}" for name, value in machine["thread_settings"].items()))
    say(", ".join(f"{name} {version}" for name, version in bench.versions.items()))
    if bench.worse is not None:
        _show_worse(bench.worse)


def _subject(settings: Mapping[str, Any]) -> str:
    size = settings["image_size"]
    amount = f"{settings['tokens']:,} tokens" if size is None else f"{size[0]} x {size[1]} pixels"
    return (
        f"{counted(settings['records'], 'record')}, {amount}, {settings['model']}, "
        f"cut {settings['cuts'][0]}, {settings['dtype']}, batches of {settings['batch_size']}"
    )


def _variants(one: Layout, figures: Mapping[str, Figure]) -> Iterator[dict[str, str]]:
    for variant in one.variants:
        row = {"variant": variant.removeprefix(f"{one.verb}.")}
        for measure in MEASURES[one.verb]:
            row[measure] = _shown(figures[f"{variant}.{measure}"])
        rate = figures[f"{variant}.samples_per_second"]
        row["note"] = rate.note or ""
        yield row


def _comparisons(one: Layout, figures: Mapping[str, Figure]) -> Iterator[dict[str, str]]:
    for comparison in one.comparisons:
        found = figures[comparison.name]
        spread = "" if found.low is None else f"{found.low:.3g} to {found.high:.3g}"
        yield {
            "figure": comparison.name.removeprefix(f"{one.verb}."),
            "median": _shown(found),
            "spread": spread,
            "note": found.note or _NOTES[comparison.kind],
        }


def _shown(figure: Figure) -> str:
    if figure.median is None:
        return "unknown"
    match figure.unit:
        case "bytes" | "bytes/s":
            return size(figure.median) + ("/s" if figure.unit == "bytes/s" else "")
        case "x":
            return f"{figure.median:.3g}x"
        case "samples/s":
            return f"{figure.median:,.1f}"
        case "s":
            return f"{figure.median:,.3g} s"
        case _:
            return f"{figure.median:,.3g}"


def _show_worse(found: list[Worse]) -> None:
    if not found:
        say("nothing became worse by more than its spread")
        return
    rows = [
        {"figure": one.name, "before": f"{one.old:.4g}", "now": f"{one.new:.4g}", "change": f"{one.change_share:+.1%}"}
        for one in found
    ]
    show_rows("worse than before, by more than both spreads", list(rows))
