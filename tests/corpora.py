"""A corpus opened as tests like to write it."""

from recycle_cli.corpus import Columns, Corpus
from recycle_cli.settings import CorpusSettings


def open_corpus(source, columns=None, *, limit=None, on_error="fail", **options) -> Corpus:
    """A corpus of one source or several, with the columns that are named."""
    columns = columns or Columns()
    settings = CorpusSettings(
        (source,) if isinstance(source, str) else tuple(source),
        columns.text,
        columns.text_pair,
        columns.label,
        columns.id,
        limit,
        on_error,
        image_column=columns.image,
        label_columns=columns.labels,
    )
    return Corpus(settings, **options)
