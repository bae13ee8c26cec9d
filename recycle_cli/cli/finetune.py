"""`recycle finetune`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from recycle_cli.cli.early import check_there
from recycle_cli.cli.options import Asked, filled, own, with_options
from recycle_cli.cli.required import end, reported
from recycle_cli.cli.trained import show_finetuned, show_heads
from recycle_cli.cli.training import training_settings
from recycle_cli.errors import UsageError
from recycle_cli.reports import fall_silent, spinner
from recycle_cli.runtime.last_word import launched_as
from recycle_cli.settings import MINILM, TASKS, CorpusSettings, Job, ModelSettings, TrainingSettings


@with_options(CorpusSettings, Job, ModelSettings, TrainingSettings, *TASKS.values(), leave_out=("failures",))
def finetune(
    context: typer.Context,
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Labelled records: files, globs, folders, a hub name, - for stdin; last a STORE to train from.",
        ),
    ],
    asked: Asked,
    store: Annotated[
        str | None, own("store", "Train from this store, if DATA does not end with it.", "Store", usual=False)
    ] = None,
    evaluation: Annotated[str | None, own("eval", "Evaluate on this file or glob after each epoch.", "Data")] = None,
    model: Annotated[
        str | None,
        own("model", "Pretrained model; by default the store's, else MiniLM.", "Model and cut"),
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
    """Train the layers after the cut, from STORE or, without one, from the records."""
    if launched_as():  # the first process speaks for all
        fall_silent()
    data, store = _data_and_store(data, store, context)
    check_there([*data, *([] if evaluation is None else [evaluation])])
    with spinner("loading PyTorch"):
        from recycle_cli.cli.heads_file import head_settings
        from recycle_cli.verbs.finetune import finetune as run
        from recycle_cli.verbs.finetune import finetune_heads as run_heads

    records = filled(CorpusSettings, asked, source=tuple(data))
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


def _data_and_store(words: list[str], store: str | None, context: typer.Context) -> tuple[list[str], str | None]:
    """The words of DATA taken apart: the last of several is the store unless there are records in it that go with the
    others: folders go with folders alone. A file of options names the store by itself.

    Raises UsageError if --store names another one.
    """
    from recycle_cli.corpus import holds_records

    folders = [Path(word).is_dir() for word in words]
    mixed = folders[-1] and not all(folders)
    if len(words) == 1 or not _typed("data", context) or (holds_records(words[-1]) and not mixed):
        return words, store or None
    *data, last = words
    if store and store != last and _typed("store", context):
        raise UsageError(f"{last} and --store {store}: two stores; name one (or there are no records in {last})")
    return data, last


def _typed(name: str, context: typer.Context) -> bool:
    """Whether the value of a parameter stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
