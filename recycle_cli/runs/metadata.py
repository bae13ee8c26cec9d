"""The metadata of a RUN, `recycle.json`: how it was made, and all that predicting with it needs."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from recycle_cli.disk import digest, expanded
from recycle_cli.errors import DamageError, StorageError, StoreError
from recycle_cli.reports import say
from recycle_cli.runs.beginning import LOG_FILES
from recycle_cli.runs.documents import check_sealed, read_json
from recycle_cli.runs.folder import ABOUT, RUN_VERSION, beside, is_finished, is_known, is_unfinished
from recycle_cli.runs.same_settings import same_settings

MODEL_CARD = "README.md"

CONFIG = "config.toml"
"""The options of a RUN's training, for `recycle finetune --config`."""


@dataclass(frozen=True)
class RunInfo:
    """A finished RUN.

    task, multi_label  what it was trained for
    model, revision    what it began with, as the user named it
    max_length         tokens of a text at most; None for images
    cut                where the head began
    fingerprint        of the store that it was trained from; None without a store
    recipe, store      that store's recipe and path
    apart              whether the checkpoint is in RUN/base and some of the trained weights lie beside it
    reuse              the model whose rows it reuses, for `reused_again`; None if it reuses none
    ladder             whether it is a ladder, which reads the rows of the cuts that `cut` names
    pooled             whether it is a pooled head, which reads vectors of the states at these cuts
    data               digest of keys and labels of the training data
    columns            the columns of its training data, by role (text, text_pair, label, image, id); None if not known
    evaluated_on       names of the corpora of its evaluation; None if there was none
    settings           all that decided its training
    report             the figures of its training
    versions           of the packages that made it
    files              size and xxh3_128 of each of its files, by its path in the RUN
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
    reuse: Mapping[str, Any] | None = None
    ladder: bool = False
    pooled: bool = False
    data: str | None = None
    columns: Mapping[str, str] | None = None
    evaluated_on: list[str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def cuts(self) -> tuple[str, ...]:
        """The cuts whose rows the head reads."""
        return tuple(self.cut.split(","))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; `from_json` is its inverse."""
        return {"version": RUN_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], path: Path) -> "RunInfo":
        """From what `path` holds; fields that are not known are left out.

        Raises StoreError for fields that are missing or not of their type.
        """
        known = {one.name: one for one in fields(cls)}
        types = get_type_hints(cls)
        for name, one in known.items():
            if name not in data:
                if one.default is MISSING and one.default_factory is MISSING:
                    raise StoreError(f"{path} is not readable (it has no {name}); train the run again")
            elif not _is_a(data[name], types[name]):
                raise StoreError(f"{path} is not readable ({name} is {_shortened(data[name])}); train the run again")
        info = cls(**{name: value for name, value in data.items() if name in known})
        if info.max_length is not None and info.max_length < 1:
            raise StoreError(f"{path} is not readable (max_length is {info.max_length}); train the run again")
        return info


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value read from JSON is of the type that a field is declared with."""
    if kind is Any:
        return True
    if isinstance(kind, UnionType):
        return any(_is_a(value, one) for one in get_args(kind))
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(value, dict if origin is Mapping else origin):
        return False
    if origin is list:
        return all(_is_a(one, inner[0]) for one in value)
    return origin is not Mapping or all(_is_a(one, inner[1]) for one in value.values())


def _shortened(value: Any) -> str:
    """A value in a message, cut short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_info(run: str | Path) -> RunInfo:
    """The metadata of a finished RUN. Raises StoreError if it is not one."""
    folder = Path(expanded(str(run)))
    path = folder / ABOUT
    if not folder.exists():
        where = f"; {beside(folder)} has one that a crash has left there" if is_finished(beside(folder)) else ""
        raise StoreError(f"{run}: no such run; make one with `recycle finetune ... --output {run}`{where}")
    if not path.is_file():
        what = "its training has not finished; go on with --resume" if is_unfinished(folder) else f"it has no {ABOUT}"
        raise StoreError(f"{run} is not a finished run: {what}")
    data = read_json(path)
    if not is_known(data):
        raise StoreError(f"{path} has version {data.get('version')!r}, expected {RUN_VERSION} at most; update recycle")
    if data["version"] > 1:  # version 1 had no digests
        check_sealed(path)
    return RunInfo.from_json(data, path)


def check_files(run: str | Path, info: RunInfo) -> None:
    """Raise DamageError for the first file of a RUN that has changed since its training.

    The model card, the options and the log decide no prediction and may be edited; a line says that they have changed.
    A RUN of version 1 has no digests and is not checked.
    """
    folder = Path(expanded(str(run)))
    for name, was in info.files.items():
        path = folder / name
        try:
            same = digest(path) == was
        except FileNotFoundError:
            same = False
        except OSError as error:
            raise StorageError(f"{path} cannot be read ({error.strerror or error})") from error
        if not same and name in (MODEL_CARD, CONFIG, *LOG_FILES):
            say(f"{path} has changed since the training; predictions do not depend on it")
        elif not same:
            how = "is missing" if not path.exists() else "is damaged: it is not as the training left it"
            raise DamageError(f"{path} {how}; restore it from a copy, or train the run again")


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise UsageError naming the first setting that a finished RUN was not trained with."""
    same_settings(read_info(folder).settings, settings, f"{folder}: ")


def own_paths(run: str | Path, info: RunInfo) -> list[str]:
    """The files of a RUN that must not be overwritten: those that it lists; of version 1 all but predictions."""
    folder = Path(expanded(str(run)))
    names = [*info.files, ABOUT, *LOG_FILES] if info.files else _all_but_predictions(folder)
    return [str(folder / name) for name in names]


def _all_but_predictions(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if not entry.name.startswith("predictions.")]
