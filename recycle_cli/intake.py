"""The corpus that the settings name, with what could not be read counted and listed."""

import json
from collections.abc import Iterator
from pathlib import Path

from recycle_cli.corpus import Columns, Failure, open_corpus
from recycle_cli.errors import StorageError
from recycle_cli.keys import Sample
from recycle_cli.reports import say
from recycle_cli.settings import CorpusSettings


class Intake:
    """Samples of a corpus, again and again. With `on_error` skip, `failed` counts the records of the last reading
    that could not be used, and the failures file lists them."""

    def __init__(self, settings: CorpusSettings, *, labelled: bool = False) -> None:
        columns = Columns(settings.text_column, settings.text_pair_column, settings.label_column, settings.id_column)
        self.failed = 0
        self._list = None if settings.failures is None else Path(settings.failures)
        self._corpus = open_corpus(
            settings.source,
            columns,
            limit=settings.limit,
            labelled=labelled,
            on_error=settings.on_error,
            on_failure=self._note,
        )
        self.columns: Columns = self._corpus.columns
        self.total: int | None = self._corpus.total

    def __iter__(self) -> Iterator[Sample]:
        self.failed = 0
        if self._list is not None:
            self._list.unlink(missing_ok=True)
        yield from self._corpus
        if self.failed:
            where = f"; {self._list} lists them" if self._list is not None else ""
            say(f"skipped {self.failed:,} records that could not be used{where}")

    def _note(self, failure: Failure) -> None:
        self.failed += 1
        if self._list is None:
            return
        try:
            self._list.parent.mkdir(parents=True, exist_ok=True)
            with self._list.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"id": failure.id, "reason": failure.reason}) + "\n")
        except OSError as error:
            raise StorageError(f"--failures {self._list} cannot be written ({error.strerror}); name another") from error
