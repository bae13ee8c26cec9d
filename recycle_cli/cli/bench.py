"""`recycle bench`."""

from dataclasses import asdict, replace
from typing import Annotated, Literal

import typer

from recycle_cli.cli.options import Asked, filled, own, with_options
from recycle_cli.cli.required import end
from recycle_cli.disk import expanded
from recycle_cli.errors import BarError, UsageError
from recycle_cli.reports import show_json, spinner
from recycle_cli.requirements import check_requirements, parse_requirement
from recycle_cli.settings import MINILM, BenchSettings, CorpusSettings, ModelSettings
from recycle_cli.settings.measuring import BENCH_IMAGES, BENCH_TEXTS, VERBS


@with_options(
    CorpusSettings,
    ModelSettings,
    BenchSettings,
    leave_out=("id-column", "on-error", "failures", "head-batchnorm"),
)
def bench(
    asked: Asked,
    verb: Annotated[
        Literal["precompute", "read", "finetune", "predict", "serve", "heads", "freezing", "contention", "all"],
        typer.Argument(
            metavar="[VERB]", help="What to measure; all means everything but serve, heads, freezing and contention."
        ),
    ] = "all",
    corpus: Annotated[
        list[str] | None,
        own("corpus", "Measure on this corpus; by default on made-up texts or images. May be repeated.", "Data"),
    ] = None,
    model: Annotated[
        str | None,
        own("model", "Pretrained model; by default MiniLM with a --corpus, or else a made-up one.", "Model and cut"),
    ] = None,
    limit: Annotated[
        int | None,
        own(
            "limit",
            f"Read only this many records, from the first on; by default {BENCH_TEXTS} texts or {BENCH_IMAGES} images.",
            "Data",
            minimum=1,
        ),
    ] = None,
    scratch: Annotated[
        str | None,
        own("scratch", "Folder on the disk to measure; by default the system's temporary folder.", "Measuring"),
    ] = None,
    compare: Annotated[
        str | None,
        own("compare", "List the figures that are worse than in this earlier output of bench --json.", "Measuring"),
    ] = None,
    require: Annotated[
        list[str] | None,
        own(
            "require",
            "Exit with 6 unless this is true, such as 'finetune.speedup_vs_full>=1.8'. May be repeated.",
            "Measuring",
        ),
    ] = None,
    plot: Annotated[str | None, own("plot", "Draw throughput and cost into this .png or .svg file.", "Output")] = None,
) -> None:
    """Measure the speed of recycle on this machine, beside upper limits and beside training without it."""
    with spinner("loading PyTorch"):
        from recycle_cli.bench import plot as drawing
        from recycle_cli.bench.run import NOT_MEASURED
        from recycle_cli.bench.run import bench as run
        from recycle_cli.bench.showing import show_bench

    settings = filled(BenchSettings, asked, verbs=VERBS if verb == "all" else (verb,))
    if settings.ranks:
        if verb != "finetune":
            raise UsageError(
                "--ranks: only finetune is measured by several processes; name it, or leave the option out"
            )
        settings = replace(settings, verbs=("ranks",))
    plot, scratch, compare = (one and expanded(one) for one in (plot, scratch, compare))
    if plot is not None:
        drawing.check_plot(plot, settings.verbs)
    report = run(
        filled(CorpusSettings, asked, source=tuple(corpus or ())),
        filled(ModelSettings, asked, name=model or (MINILM if corpus else "")),
        settings,
        scratch=scratch,
        require=require or (),
        compare=compare,
    )
    if plot is not None:
        drawing.plot(report, plot)
    missed = None
    try:
        check_requirements(
            [parse_requirement(text, report.figures, NOT_MEASURED) for text in require or ()],
            {name: one.median for name, one in report.figures.items()},
            {name: one.note for name, one in report.figures.items() if one.note},
        )
    except BarError as error:
        missed = error
    if asked["as_json"]:
        show_json(asdict(report), missed)
    else:
        show_bench(report)
    end(missed)
