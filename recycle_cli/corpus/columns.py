"""The roles of columns: as named by the user, or chosen if there is only one sensible answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from recycle_cli.corpus.records import shown
from recycle_cli.errors import DataError
from recycle_cli.settings import CorpusSettings

TEXT_COLUMNS = ("text", "sentence", "content", "document", "review", "body", "message")
IMAGE_COLUMNS = ("image", "img", "image_path", "image_file", "path", "file_path", "file", "file_name", "filename")
LABEL_COLUMNS = ("label", "labels", "class", "category", "intent")
PAIR_COLUMNS = (
    ("text", "text_pair"),
    ("text1", "text2"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
)
"""Usual names of columns. They only spare the user an option: a column of another name is named on the command line."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns. Before a form has resolved them, None means not named by the user; afterwards, not there.

    labels  the columns of several labels, in place of `label`; a record has a label in at least one of them
    others  further columns of a form, by their role
    """

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    id: str | None = None
    image: str | None = None
    labels: tuple[str, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: CorpusSettings) -> "Columns":
        """The columns that the settings name."""
        return cls(
            settings.text_column,
            settings.text_pair_column,
            settings.label_column,
            settings.id_column,
            settings.image_column,
            settings.label_columns,
        )

    @property
    def single(self) -> dict[str, str]:
        """The columns in use that have a role of their own, by role."""
        names = {name: getattr(self, name) for name in ("text", "text_pair", "label", "id", "image")}
        return {name: column for name, column in names.items() if column is not None} | dict(self.others)

    @property
    def named(self) -> tuple[str, ...]:
        """The columns in use, without repeats."""
        return tuple(dict.fromkeys([*self.single.values(), *self.labels]))


INPUT_ROLES = ("text", "text_pair", "image")
"""The roles that a model reads. If one of them is missing, a RUN that was trained on it cannot predict."""


def as_trained(named: Columns, trained: Mapping[str, str], schema: Mapping[str, bool], corpus: str) -> Columns:
    """The columns that the user names, and for the other roles those that a RUN was trained on, if they are there.

    `trained`: the columns of the RUN by role; empty if they are not known. Raises DataError for an input that is
    missing, and for one that the RUN was not trained on.
    """
    if not trained:
        return named
    for role, column in trained.items():
        if getattr(named, role, column) is not None:
            continue
        option = f"--{role.replace('_', '-')}-column"
        if column in schema:
            found: dict[str, Any] = {role: column}
            named = replace(named, **found)
        elif role in INPUT_ROLES:
            raise DataError(
                f"{corpus}: no column {column!r}, the {role.replace('_', ' ')} that the run was trained on; name "
                f"it with {option}; {listing(schema)}"
            )
    for role in INPUT_ROLES:
        if role not in trained and getattr(named, role) is not None:
            raise DataError(
                f"--{role.replace('_', '-')}-column {getattr(named, role)}: the run was trained without it, on "
                f"{' and '.join(name.replace('_', ' ') for name in INPUT_ROLES if name in trained)} alone; leave it out"
            )
    return named


def kept_columns(asked: Sequence[str], schema: Mapping[str, bool], columns: Columns, corpus: str) -> tuple[str, ...]:
    """The columns that `--keep-columns` names, each once. A word is one name, several with commas between them, or
    `all` (all but the image).

    Raises DataError, listing the columns, for one that is missing.
    """
    found: dict[str, None] = {}
    for word in asked:
        names = [word] if word in schema else [name.strip() for name in word.split(",")]
        if word == "all":
            names = [name for name in schema if name != columns.image]
        for name in names:
            if name not in schema:
                raise DataError(f"{corpus}: no column {name!r} (--keep-columns); {listing(schema)}")
            found[name] = None
    return tuple(found)


def resolve_common(
    columns: Columns, schema: Mapping[str, bool], corpus: str, *, labelled: bool
) -> tuple[Columns, list[str]]:
    """Fill in label and id, which every form has. Returns also the names of the columns that are left.

    Raises DataError, listing the columns, if a named column or, if `labelled`, the label is missing.
    """
    for option, name in _named_options(columns):
        if name not in schema:
            raise DataError(f"{corpus}: no column {name!r} ({option}); {listing(schema)}")
    free = [name for name in schema if name not in columns.named]
    label = columns.label or (None if columns.labels else only(LABEL_COLUMNS, free))
    if label is None and labelled and not columns.labels:
        raise DataError(f"{corpus}: which column is the label? Name it with --label-column; {listing(schema)}")
    resolved = replace(columns, label=label, id=columns.id or only(("id",), free))
    return resolved, [name for name in free if name not in resolved.named]


def choose_text(schema: Mapping[str, bool], free: list[str], with_pair: bool) -> tuple[str | None, str | None]:
    """The column of the text and, if `with_pair` and there is one, that of its pair; None and None if not clear."""
    pairs = [pair for pair in PAIR_COLUMNS if pair[0] in free and pair[1] in free] if with_pair else []
    singles = [name for name in TEXT_COLUMNS if name in free]
    if len(pairs) == 1 and all(name in pairs[0] for name in singles):
        return pairs[0]
    if pairs or len(singles) > 1:
        return None, None
    strings = [name for name in free if schema[name]]
    return singles[0] if singles else (strings[0] if len(strings) == 1 else None), None


def only(names: tuple[str, ...], free: list[str]) -> str | None:
    """The one of these names that is among the columns; None if there is none or more than one."""
    found = [name for name in names if name in free]
    return found[0] if len(found) == 1 else None


def _named_options(columns: Columns) -> list[tuple[str, str]]:
    named = [*columns.single.items(), *(("label", column) for column in columns.labels)]
    return [(f"--{name.replace('_', '-')}-column", value) for name, value in named]


def listing(schema: Mapping[str, bool]) -> str:
    """A list of the columns for an error message."""
    return f"the columns are: {shown(', '.join(schema))}"
