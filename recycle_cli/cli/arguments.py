"""Arguments that several commands take, and the file that failures are listed in by default."""

import re
from pathlib import Path
from typing import Annotated

import typer

from recycle_cli.settings import Shard

Corpus = Annotated[
    list[str],
    typer.Argument(
        metavar="CORPUS...",
        help="Records: CSV, TSV, JSON lines, Parquet, Arrow or text files (globs too), folders of images, the folder "
        "of a saved dataset, or hub:NAME[:config][:split].",
    ),
]
StoreFolder = Annotated[str, typer.Argument(metavar="STORE", help="Folder or URL of the store.")]


def failures_beside(store: str) -> str:
    """Where failures are listed unless told otherwise: beside a local store, here for a bucket's."""
    name = store.rstrip("/")
    if "://" in name:
        name = re.split("[?#]", name)[0].rstrip("/")  # a URL with a query is refused later, and its token not kept
    return f"{name.rpartition('/')[2] if '://' in name else name}.failures.jsonl"


def of_shard(path: str, shard: Shard | None) -> str:
    """The file of one shard's process, beside those of the others: `acts.zarr.failures.0-of-4.jsonl`."""
    if shard is None:
        return path
    file = Path(path)
    return str(file.with_stem(f"{file.stem}.{shard.index}-of-{shard.of}"))
