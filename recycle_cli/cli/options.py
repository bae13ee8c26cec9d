"""Arguments and options that commands share: each name, help text and environment variable written once."""

from typing import Annotated, Any, Literal

import typer


def option(name: str, help_text: str, *more: str, **settings: Any) -> Any:
    """An option that also reads RECYCLE_<NAME> from the environment."""
    variable = f"RECYCLE_{name.removeprefix('--').split('/')[0].replace('-', '_').upper()}"
    return typer.Option(name, *more, help=help_text, envvar=variable, **settings)


CorpusArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="CORPUS...",
        help="CSV, TSV, JSON lines, Parquet, Arrow or text files (globs too), a saved dataset folder, "
        "or hub:NAME[:config][:split]",
    ),
]
DataArgument = Annotated[
    str, typer.Argument(metavar="DATA", help="Labelled records: as CORPUS, one file, glob or name")
]
StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="The store's folder")]

TextColumn = Annotated[str | None, option("--text-column", "Column of the text; found where it is obvious")]
TextPairColumn = Annotated[str | None, option("--text-pair-column", "Column of the second text of a pair")]
LabelColumn = Annotated[str | None, option("--label-column", "Column of the label; found where it is obvious")]
IdColumn = Annotated[str | None, option("--id-column", "Column that names a record; else its number, from 0")]
Limit = Annotated[int | None, option("--limit", "Read only the first so many records", min=1)]
OnError = Annotated[Literal["fail", "skip"], option("--on-error", "What a record that cannot be used does")]
Failures = Annotated[str | None, option("--failures", "Where --on-error skip lists what it left out (JSON lines)")]

Model = Annotated[str, option("--model", "Pretrained model: a name on the hub, or a folder")]
Revision = Annotated[str | None, option("--revision", "Branch, tag or commit of the model on the hub")]
MaxLength = Annotated[int | None, option("--max-length", "Tokens a sample at most; else what the model takes", min=2)]
TrustRemoteCode = Annotated[bool, option("--trust-remote-code", "Run code that comes with the model")]
Device = Annotated[str, option("--device", "auto, cpu, cuda, cuda:1, mps")]
Precision = Annotated[
    Literal["float32", "bfloat16", "float16"], option("--precision", "Of the computation; the smaller ones are mixed")
]
Task = Annotated[Literal["text-classification"], option("--task", "What the head is trained for")]

Cuts = Annotated[list[str], option("--cut", "Where the trunk ends: blocks (3) or a share (50%); may repeat")]
Cut = Annotated[
    str | None, option("--cut", "Where the head begins: blocks (3), a share (50%), 0 for all; else the store's")
]
Dtype = Annotated[
    Literal["float16", "bfloat16", "float32", "int8"],
    option("--dtype", "How the rows are stored; int8 has a scale a row"),
]
BatchTokens = Annotated[int, option("--batch-tokens", "Padded tokens a batch at most", min=1)]
SegmentBytes = Annotated[
    int, option("--segment-bytes", "Seal what is done at about so many bytes: the most a crash can lose", min=1)
]
Json = Annotated[bool, option("--json", "Print one JSON object on stdout")]
