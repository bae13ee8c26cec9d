"""The commands that measure: bench, plan and layers."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

import typer

from recycle_cli.bench.settings import IMAGES, RECORDS, VERBS, BenchSettings
from recycle_cli.cli import options as o
from recycle_cli.cli.app import app
from recycle_cli.errors import BarError
from recycle_cli.plan.settings import IMAGES as IMAGES_TRIED
from recycle_cli.plan.settings import TEXTS, PlanSettings
from recycle_cli.reports import say, show_rows
from recycle_cli.settings import CorpusSettings, ImageSettings, ModelSettings, PrecomputeSettings, ViewSettings

BENCH, PLAN, FILL = BenchSettings(), PlanSettings(), PrecomputeSettings()
MODEL, CORPUS, VIEWS = ModelSettings(), CorpusSettings(()), ViewSettings()


@app.command()
def bench(
    verb: Annotated[
        Literal["precompute", "read", "finetune", "predict", "heads", "all"],
        typer.Argument(help="What to measure; all is all but heads"),
    ] = "all",
    corpus: Annotated[
        list[str] | None,
        o.option("--corpus", "What to measure on, as CORPUS; else made-up texts or images; may repeat"),
    ] = None,
    model: Annotated[
        str | None, o.option("--model", "Pretrained model; else MiniLM for a --corpus, a made-up one without")
    ] = None,
    cut: Annotated[
        list[str], o.option("--cut", "Where the trunk ends; may repeat: the first meets all baselines")
    ] = list(BENCH.cuts),  # noqa: B006 - Typer reads it, nobody changes it
    max_length: o.MaxLength = MODEL.max_length,
    dtype: o.Dtype = BENCH.dtype,
    codec: o.Codec = BENCH.codec,
    limit: Annotated[
        int | None,
        o.option("--limit", f"Read only the first so many records; else {RECORDS} texts, {IMAGES} images", min=1),
    ] = None,
    batch_size: Annotated[int, o.option("--batch-size", "Samples a training batch", min=1)] = BENCH.batch_size,
    batch_tokens: o.BatchTokens = BENCH.batch_tokens,
    batches: Annotated[int, o.option("--batches", "Training batches a repetition", min=1)] = BENCH.batches,
    repetitions: Annotated[
        int, o.option("--repetitions", "Turns of each variant, after one to warm up", min=1)
    ] = BENCH.repetitions,
    seed: Annotated[int, o.option("--seed", "Of made-up data, new weights and orders", min=0)] = BENCH.seed,
    scratch: Annotated[
        str | None, o.option("--scratch", "Folder on the disk to measure; else the system's for temporary files")
    ] = None,
    compare: Annotated[str | None, o.option("--compare", "An older --json output; lists what became worse")] = None,
    require: Annotated[
        list[str] | None, o.option("--require", "Exit 6 unless it holds: 'finetune.speedup_vs_full>=1.8'; may repeat")
    ] = None,
    plot: Annotated[str | None, o.option("--plot", "Draw throughput and cost as .png or .svg")] = None,
    text_column: o.TextColumn = None,
    text_pair_column: o.TextPairColumn = None,
    image_column: o.ImageColumn = None,
    device: o.Device = MODEL.device,
    precision: o.Precision = MODEL.precision,
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = False,
    weights: o.Weights = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    mean: o.Mean = None,
    std: o.Std = None,
    as_json: o.Json = False,
) -> None:
    """Measure recycle beside its limits and beside what would be used instead, on this machine."""
    from recycle_cli.bench import plot as drawing
    from recycle_cli.bench.bars import check_bars, parse_bar
    from recycle_cli.bench.run import bench as run
    from recycle_cli.bench.showing import show_bench

    verbs = VERBS if verb == "all" else (verb,)
    settings = BenchSettings(verbs, tuple(cut), dtype, batch_size, batch_tokens, batches, repetitions, seed, codec)
    if plot is not None:
        drawing.check_plot(plot, verbs)
    named = model or (MODEL.name if corpus else "")
    images = o.image_settings(weights, resize, crop, mean, std)
    report = run(
        CorpusSettings(
            tuple(corpus or ()), text_column, text_pair_column, None, None, limit, image_column=image_column
        ),
        ModelSettings(named, revision, max_length, trust_remote_code, device, precision, images),
        settings,
        scratch=scratch,
        require=require or (),
        compare=compare,
    )
    if plot is not None:
        drawing.plot(report, plot)
    missed = None
    try:
        check_bars(report.figures, [parse_bar(text, report.figures) for text in require or ()])
    except BarError as error:
        missed = error
        report = replace(report, error={"kind": "BarError", "message": str(error), "exit_code": error.exit_code})
    if not as_json:
        show_bench(report)
    else:
        print(json.dumps(asdict(report), allow_nan=False), flush=True)
    if missed is not None:
        # One JSON object at most: what the error boundary would print is part of the report already.
        say(f"recycle: {missed}")
        raise typer.Exit(missed.exit_code)


@app.command()
def plan(
    corpus: o.CorpusArgument,
    model: o.Model = MODEL.name,
    cut: Annotated[
        list[str],
        o.option("--cut", "Where the trunk could end: blocks (3), a module (layer3), a share (50%); may repeat"),
    ] = list(PLAN.cuts),  # noqa: B006 - Typer reads it, nobody changes it
    max_length: o.MaxLength = MODEL.max_length,
    dtype: o.Dtype = FILL.dtype,
    epochs: Annotated[int, o.option("--epochs", "Passes over the data that are planned", min=1)] = PLAN.epochs,
    batch_size: Annotated[int, o.option("--batch-size", "Samples a training batch", min=1)] = PLAN.batch_size,
    batch_tokens: o.BatchTokens = PLAN.batch_tokens,
    sample: Annotated[
        int | None,
        o.option("--sample", f"Records to try the cuts on; else {TEXTS} texts, {IMAGES_TRIED} images", min=1),
    ] = PLAN.sample,
    batches: Annotated[
        int,
        o.option("--batches", "At least so many training batches a repetition; more where steps are short", min=1),
    ] = PLAN.batches,
    repetitions: Annotated[
        int, o.option("--repetitions", "Turns of each variant, after one to warm up", min=1)
    ] = PLAN.repetitions,
    scratch: Annotated[
        str | None, o.option("--scratch", "Folder on the disk to measure; else the system's for temporary files")
    ] = None,
    text_column: o.TextColumn = None,
    text_pair_column: o.TextPairColumn = None,
    image_column: o.ImageColumn = None,
    limit: o.Limit = None,
    on_error: o.OnError = CORPUS.on_error,
    device: o.Device = MODEL.device,
    precision: o.Precision = MODEL.precision,
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = False,
    weights: o.Weights = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    mean: o.Mean = None,
    std: o.Std = None,
    views: o.Views = VIEWS.views,
    augment: o.Augment = VIEWS.augment,
    as_json: o.Json = False,
) -> None:
    """Forecast bytes, time and the epoch that pays back at each cut from a sample of CORPUS; keep nothing."""
    from recycle_cli.plan.run import plan as run
    from recycle_cli.plan.showing import show_plan

    images = o.image_settings(weights, resize, crop, mean, std)
    found = run(
        CorpusSettings(
            tuple(corpus), text_column, text_pair_column, None, None, limit, on_error, image_column=image_column
        ),
        ModelSettings(model, revision, max_length, trust_remote_code, device, precision, images),
        PlanSettings(
            tuple(cut),
            dtype,
            epochs,
            batch_size,
            batch_tokens,
            sample,
            batches,
            repetitions,
            views=ViewSettings(views, augment),
        ),
        scratch,
    )
    if as_json:
        print(json.dumps(asdict(found), allow_nan=False), flush=True)
    else:
        show_plan(found)


@app.command()
def layers(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Pretrained model: a name on the hub, or a folder")],
    max_length: o.MaxLength = MODEL.max_length,
    image_size: Annotated[
        int | None, o.option("--image-size", "Side of the images of an image model; else its weights' own", min=1)
    ] = None,
    dtype: o.Dtype = FILL.dtype,
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = False,
    as_json: o.Json = False,
) -> None:
    """The cuts of MODEL, each with its share of the work and of the parameters, and what it stores of a sample."""
    from recycle_cli.models import layers_of

    side = () if image_size is None else (image_size,)
    images = ImageSettings(resize=side, crop=side)
    found, length = layers_of(ModelSettings(model, revision, max_length, trust_remote_code, images=images), dtype)
    rows: list[Mapping[str, Any]] = [asdict(layer) for layer in found]
    if as_json:
        print(json.dumps({"model": model, "max_length": length, "dtype": dtype, "layers": rows}), flush=True)
    else:
        show_rows(f"{model}: {'an image' if length is None else f'a sample of {length} tokens'} in {dtype}", rows)
