"""Which column is what: as named by the user, or chosen where there is only one sensible answer."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from recycle_cli.corpus.records import shown
from recycle_cli.errors import DataError

TEXTS = ("text", "sentence", "content", "document", "review", "body", "message")
IMAGES = ("image", "img", "image_path", "image_file", "path", "file_path", "file", "file_name", "filename")
LABELS = ("label", "labels", "class", "category", "intent")
PAIRS = (
    ("text", "text_pair"),
    ("text1", "text2"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
)


@dataclass(frozen=True)
class Columns:
    """Names of the columns. None: not named by the user; after `resolve`: not there.

    `targets`: instead of the label, the columns of several; a record has a label in at least one of them.
    """

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    id: str | None = None
    image: str | None = None
    targets: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """The columns in use, without repeats."""
        names = (self.text, self.text_pair, self.label, self.id, self.image, *self.targets)
        return tuple(dict.fromkeys(name for name in names if name is not None))


def resolve(columns: Columns, schema: Mapping[str, bool], corpus: str, *, labelled: bool) -> Columns:
    """Fill in the columns that were not named. `schema` tells for each column whether it holds text.

    Chosen where not named: the label, if one column of LABELS is there; the id, if a column `id` is there; the text, if
    one column of TEXTS is there, else the two of one of PAIRS, else the only column left that holds text.
    Raises DataError, with the columns there are, where a named column is missing or more than one choice is left.
    """
    if columns.image is not None:
        raise DataError(f"{corpus}: the model takes texts, so that --image-column has no meaning; use --text-column")
    resolved, free = _resolve_common(columns, schema, corpus, labelled=labelled)
    if columns.text is not None:
        return resolved
    text, pair = _choose_text(schema, free, columns.text_pair is None)
    if text is None:
        raise DataError(f"{corpus}: which column is the text? Name it with --text-column; {_listing(schema)}")
    return replace(resolved, text=text, text_pair=pair or columns.text_pair)


def resolve_images(columns: Columns, schema: Mapping[str, bool], corpus: str, *, labelled: bool) -> Columns:
    """As `resolve`, for a corpus of images: the image, if not named, is the only column of IMAGES that is there."""
    if columns.text is not None or columns.text_pair is not None:
        raise DataError(f"{corpus}: the model takes images, so that --text-column has no meaning; use --image-column")
    resolved, free = _resolve_common(columns, schema, corpus, labelled=labelled)
    image = columns.image or _only(IMAGES, free)
    if image is None:
        raise DataError(f"{corpus}: which column is the image? Name it with --image-column; {_listing(schema)}")
    return replace(resolved, image=image)


def _resolve_common(
    columns: Columns, schema: Mapping[str, bool], corpus: str, *, labelled: bool
) -> tuple[Columns, list[str]]:
    """The columns with label and id filled in, and the names that are left."""
    for option, name in _named_options(columns):
        if name not in schema:
            raise DataError(f"{corpus}: no column {name!r} ({option}); {_listing(schema)}")
    free = [name for name in schema if name not in columns.named]
    label = columns.label or (None if columns.targets else _only(LABELS, free))
    if label is None and labelled and not columns.targets:
        raise DataError(f"{corpus}: which column is the label? Name it with --label-column; {_listing(schema)}")
    resolved = replace(columns, label=label, id=columns.id or _only(("id",), free))
    return resolved, [name for name in free if name not in resolved.named]


def _choose_text(schema: Mapping[str, bool], free: list[str], with_pair: bool) -> tuple[str | None, str | None]:
    pairs = [pair for pair in PAIRS if pair[0] in free and pair[1] in free] if with_pair else []
    singles = [name for name in TEXTS if name in free]
    if len(pairs) == 1 and all(name in pairs[0] for name in singles):
        return pairs[0]
    if pairs or len(singles) > 1:
        return None, None
    strings = [name for name in free if schema[name]]
    return singles[0] if singles else (strings[0] if len(strings) == 1 else None), None


def _only(names: tuple[str, ...], free: list[str]) -> str | None:
    found = [name for name in names if name in free]
    return found[0] if len(found) == 1 else None


def _named_options(columns: Columns) -> list[tuple[str, str]]:
    single = [(field.name, getattr(columns, field.name)) for field in fields(columns) if field.name != "targets"]
    named = [*single, *(("label", target) for target in columns.targets)]
    return [(f"--{name.replace('_', '-')}-column", value) for name, value in named if value is not None]


def _listing(schema: Mapping[str, bool]) -> str:
    return f"the columns are: {shown(', '.join(schema))}"
