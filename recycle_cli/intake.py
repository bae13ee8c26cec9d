"""The corpus that the settings name, with what could not be read counted and listed."""

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from recycle_cli.corpus import Columns, Failure, open_corpus
from recycle_cli.errors import DataError, RecycleError, StorageError
from recycle_cli.keys import Sample, Views
from recycle_cli.reports import Bar, say
from recycle_cli.settings import CorpusSettings


class Intake:
    """Samples of a corpus, again and again, each followed by its `views`. With `on_error` skip, `failed` counts the
    records of the last reading that could not be used, and the failures file lists them."""

    def __init__(
        self,
        settings: CorpusSettings,
        *,
        labelled: bool = False,
        images: bool = False,
        views: Views = (),
    ) -> None:
        columns = Columns(
            settings.text_column,
            settings.text_pair_column,
            settings.label_column,
            settings.id_column,
            settings.image_column,
            settings.label_columns,
        )
        self.failed = 0
        self.views = views
        self._settings, self._images, self._labelled = settings, images, labelled
        self._on_error = settings.on_error
        self._list = None if settings.failures is None else Path(settings.failures)
        self._corpus = open_corpus(
            settings.source,
            columns,
            limit=settings.limit,
            labelled=labelled,
            on_error=settings.on_error,
            on_failure=self._note,
            images=images,
            multi_label=settings.multi_label,
        )
        self.columns: Columns = self._corpus.columns
        self._named = columns
        total = self._corpus.total
        self.total: int | None = None if total is None else total * (1 + len(views))

    @property
    def resolved(self) -> CorpusSettings:
        """The settings with every column named, for a command that must find the same ones without labels."""
        columns = self.columns
        return replace(
            self._settings,
            text_column=columns.text,
            text_pair_column=columns.text_pair,
            image_column=columns.image,
        )

    def __iter__(self) -> Iterator[Sample]:
        self.failed = 0
        if self._list is not None:
            self._list.unlink(missing_ok=True)
        for sample in self._corpus:
            yield sample
            for view in self.views:
                yield view(sample)

    def tell_columns(self) -> None:
        """One line on the columns that the user did not name and that do not say themselves what they are."""
        taken = {name: column for name, column in asdict(self.columns).items() if column and name != "id"}
        chosen = [
            f"{column!r} as the {name.replace('_', ' ')} (--{name.replace('_', '-')}-column)"
            for name, column in taken.items()
            if column != name and getattr(self._named, name) is None
        ]
        if chosen:
            say(f"{self._corpus.name}: taking the column {', '.join(chosen)}")

    def count_ahead(self, progress: Bar) -> None:
        """Where the number of samples is not known and somebody watches, count them in a thread: for the time left."""
        if self.total is None and progress.shown:
            threading.Thread(target=self._count, args=(progress,), daemon=True).start()

    def _count(self, progress: Bar) -> None:
        again = replace(self._settings, on_error="skip", failures=None)
        # What is wrong with the corpus is for the reading itself to say.
        with suppress(RecycleError):
            corpus = Intake(again, labelled=self._labelled, images=self._images)
            progress.update(total=sum(1 for _ in corpus) * (1 + len(self.views)))

    def reject(self, sample: Sample, error: DataError) -> None:
        """A sample that was read but cannot be used (an image that cannot be decoded): raise, or count and list it."""
        if self._on_error == "fail":
            raise DataError(f"{error} (or pass over such records with --on-error skip)") from error
        if "view" not in sample.fields:
            self._note(Failure(sample.id, str(error)))

    def tell(self) -> None:
        """One line on what was skipped, once all is read and prepared."""
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
