"""`recycle predict`."""

from dataclasses import asdict
from typing import Annotated

import typer

from recycle_cli.cli.arguments import Corpus
from recycle_cli.cli.early import check_there
from recycle_cli.cli.options import Asked, filled, own, with_options
from recycle_cli.cli.required import end, reported
from recycle_cli.disk import STDOUT
from recycle_cli.errors import UsageError
from recycle_cli.reports import show_fields, show_json, spinner
from recycle_cli.settings import CorpusSettings, ImageSettings, ModelSettings, PredictSettings
from recycle_cli.settings.option import options_of


@with_options(
    CorpusSettings,
    ModelSettings,
    PredictSettings,
    leave_out=("model", "revision", "max-length", *options_of(ImageSettings)),
)
def predict(
    data: Corpus,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a finished RUN, as finetune --output left it.")],
    asked: Asked,
    store: Annotated[
        str | None, own("store", "Read the activations that this store holds, instead of computing them.", "Store")
    ] = None,
    output: Annotated[
        str | None,
        own(
            "output",
            "Write the predictions to this .csv, .jsonl or .parquet file, or to stdout (-); by default to "
            "RUN/predictions.csv, or .parquet for embeddings and .jsonl for tags. Answers to questions may go to .json "
            "as well, in SQuAD's own form.",
            "Output",
        ),
    ] = None,
) -> None:
    """Predict with RUN; what a --store holds is not computed again, and the predictions are the same."""
    check_there(data)
    with spinner("loading PyTorch"):
        from recycle_cli.verbs.predict import predict as score

    if output == STDOUT and asked["as_json"]:
        raise UsageError("--json prints its object on stdout, where --output - writes the predictions; leave out one")
    records = filled(CorpusSettings, asked, source=tuple(data))
    network = filled(ModelSettings, asked, name=run, images=ImageSettings())
    settings = filled(PredictSettings, asked)
    report, missed = reported(lambda: score(records, run, store, output, network, settings))
    if asked["as_json"]:
        show_json(asdict(report), missed)
    else:
        fields = asdict(report)
        show_fields("Predicted", (fields.pop("metrics") or {}) | fields)
    end(missed)
