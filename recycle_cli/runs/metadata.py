"""A RUN's metadata: what `recycle.json` keeps of how it was made, enough to predict with it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from recycle_cli.errors import StoreError
from recycle_cli.runs.checkpoint import same_settings
from recycle_cli.runs.folder import ABOUT, CHECKPOINT

RUN_VERSION = 1


@dataclass(frozen=True)
class RunInfo:
    """A finished RUN.

    task, multi_label  what it was trained for
    model, revision    what it began with, as the user named it
    max_length         tokens of a text at most; None for images
    cut                where the head began
    fingerprint        of the store that it was trained from; None without a store
    recipe, store      that store's recipe and path
    apart              whether its adapters are kept beside the checkpoint, and not merged into it
    data               digest of keys and labels of the training data
    columns            of its training data, by what they hold (text, text_pair, label, image, id); None if not known
    evaluated_on       names of the corpora of its evaluation; None if there was none
    settings           all that decided its training
    report             the figures of its training
    versions           of the packages that made it
    """

    task: str
    model: str
    cut: str
    report: Mapping[str, Any]
    multi_label: bool = False
    revision: str | None = None
    max_length: int | None = None
    fingerprint: str | None = None
    recipe: Mapping[str, Any] | None = None
    store: str | None = None
    apart: bool = False
    data: str | None = None
    columns: Mapping[str, str] | None = None
    evaluated_on: list[str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; `from_json` is its inverse."""
        return {"version": RUN_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], path: Path) -> "RunInfo":
        """From what `path` holds. Raises StoreError for another version, and for fields that are missing or wrong."""
        if data.get("version") != RUN_VERSION:
            raise StoreError(f"{path} has version {data.get('version')}, expected {RUN_VERSION}; update recycle")
        known = {one.name for one in fields(cls)}
        try:
            return cls(**{name: value for name, value in data.items() if name in known})
        except TypeError as error:
            raise StoreError(f"{path} is not readable ({error}); train the run again") from error


def read_info(run: str | Path) -> RunInfo:
    """What recycle knows of a finished RUN. Raises StoreError if it is not one."""
    folder = Path(run)
    path = folder / ABOUT
    if not folder.exists():
        raise StoreError(f"{run}: no such run; make one with `recycle finetune ... --output {run}`")
    if not path.is_file():
        unfinished = (folder / CHECKPOINT).exists()
        what = "its training has not finished; go on with --resume" if unfinished else f"it has no {ABOUT}"
        raise StoreError(f"{run} is not a finished run: {what}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} is not readable ({error}); train the run again") from error
    if not isinstance(data, dict):
        raise StoreError(f"{path} is not readable (it holds no object); train the run again")
    return RunInfo.from_json(data, path)


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise UsageError naming the first setting that a finished RUN was not trained with."""
    same_settings(read_info(folder).settings, settings, f"{folder}: ")
