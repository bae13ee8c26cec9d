"""`recycle finetune`."""

from dataclasses import replace
from typing import Annotated

import typer

from recycle_cli.cli.options import Asked, filled, own, with_options
from recycle_cli.cli.required import end, reported
from recycle_cli.cli.trained import show_finetuned, show_heads
from recycle_cli.cli.training import training_settings
from recycle_cli.reports import spinner
from recycle_cli.settings import MINILM, TASKS, CorpusSettings, Job, ModelSettings, TrainingSettings


@with_options(CorpusSettings, Job, ModelSettings, TrainingSettings, *TASKS.values(), leave_out=("failures",))
def finetune(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="Labelled records: a file, glob, folder or hub name."),
    ],
    asked: Asked,
    store: Annotated[
        str | None,
        typer.Argument(metavar="[STORE]", help="Train from this store; without it, from the records."),
    ] = None,
    evaluation: Annotated[
        str | None, own("eval", "Evaluate on these labelled records after each epoch.", "Data")
    ] = None,
    model: Annotated[
        str | None,
        own("model", "Pretrained model; by default the store's, or MiniLM without STORE.", "Model and cut"),
    ] = None,
    heads: Annotated[
        str | None,
        own(
            "heads",
            "Train several heads, which this TOML file lists, on the same batches; each leaves its RUN in OUTPUT/NAME.",
            "Training",
            usual=False,
        ),
    ] = None,
) -> None:
    """Train the layers after the cut from STORE, or without STORE from the records (--cut 0 trains the whole model)."""
    with spinner("loading PyTorch"):
        from recycle_cli.cli.heads_file import head_settings
        from recycle_cli.verbs.finetune import finetune as run
        from recycle_cli.verbs.finetune import finetune_heads as run_heads

    records = filled(CorpusSettings, asked, source=(data,))
    judged = None if evaluation is None else replace(records, source=(evaluation,), limit=None)
    job = filled(Job, asked, data=records, store=store, evaluation=judged, model_named=model is not None)
    network = filled(ModelSettings, asked, name=model or MINILM)
    if heads is None:
        settings = training_settings(asked)
        report, missed = reported(lambda: run(job, network, settings))
        show_finetuned(report, as_json=asked["as_json"], missed=missed)
    else:
        several = head_settings(heads, context)
        reports, missed = reported(lambda: run_heads(job, network, several))
        show_heads(reports, as_json=asked["as_json"], missed=missed)
    end(missed)
