"""The corpus: records checked and turned into examples, again from the start for each pass."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, NoReturn

from recycle_cli.corpus.columns import Columns, as_trained, kept_columns
from recycle_cli.corpus.examples import Example, Expand, Views
from recycle_cli.corpus.failures import Failure, Failures
from recycle_cli.corpus.forms import Form
from recycle_cli.corpus.labels import ReadLabel, has_label, one_label
from recycle_cli.corpus.progress import RecordsDone
from recycle_cli.corpus.records import BadLabel, BadRecord, Record, shown, sound
from recycle_cli.corpus.shards import finds_shards, records_of
from recycle_cli.corpus.texts import TEXT
from recycle_cli.errors import DataError, RecycleError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.reports import Bar, bar, say
from recycle_cli.settings import CorpusSettings

_EMPTY = "is empty, expected at least one record"


class Corpus:
    """A stream of the examples that records give; iterate as often as needed, each pass starts anew.

    form        the columns that a record has, and the samples that it gives
    read_label  makes a label of the value in the label column
    expand      gives an example other samples, such as the windows of a long text
    labelled    whether every record must have a label; else a missing one is None
    on_failure  called for each record that is skipped

    Opening decides the columns and reads only the first records. `used` counts the records of the latest pass that gave
    an example.

    Opening and iterating raise DataError for a corpus that cannot be read or in which no record can be used, and,
    unless the settings skip them, for a record that cannot be used.
    """

    def __init__(
        self,
        settings: CorpusSettings,
        *,
        form: Form = TEXT,
        read_label: ReadLabel = one_label,
        expand: Expand | None = None,
        labelled: bool = False,
        on_failure: Callable[[Failure], None] | None = None,
    ) -> None:
        if settings.limit is not None and settings.limit < 1:
            raise UsageError(f"--limit {settings.limit}: expected at least 1")
        self.settings, self.form, self.read_label, self.labelled = settings, form, read_label, labelled
        self._expand = expand
        self._done: RecordsDone | None = None
        self.failures = Failures(settings, on_failure)
        self.used, self.unread_labels, self.unread_label = 0, 0, ""
        self._reader = form.reader(settings.source, settings.files)
        self.name = self._reader.name
        if labelled:
            self._expect_labels()
        schema = self._reader.schema()
        if not schema:
            raise DataError(f"{self.name}: {_EMPTY}")
        self._named = as_trained(Columns.of(settings), dict(settings.trained), schema, self.name)
        self.columns = form.resolve(self._named, schema, self.name, labelled=labelled)
        if self._named.label is None and any(role == "label" for role, _ in settings.trained):
            # The RUN's labels are not in this corpus: a column that looks like labels holds others.
            self.columns = replace(self.columns, label=None)
        self.kept = kept_columns(settings.kept, schema, self.columns, self.name)

    def _expect_labels(self) -> None:
        """Raise DataError if the records cannot have labels, or if it is in doubt which their labels are."""
        if self._reader.why_unlabelled is not None:
            raise DataError(f"{self.name}: {self._reader.why_unlabelled}")
        named = self.settings.label_column or self.settings.label_columns
        if not named and self._reader.doubt is not None:
            raise DataError(f"{self.name}: {self._reader.doubt}")

    @cached_property
    def total(self) -> int | None:
        """Records in all; None if the files do not tell without being read."""
        if self.settings.shard is not None:
            return None
        total, limit = self._reader.total, self.settings.limit
        return total if limit is None or total is None else min(limit, total)

    def divides(self, of: int) -> bool:
        """Whether each of so many shards can be read without what lies in the others."""
        return finds_shards(self._reader, of)

    @property
    def failed(self) -> int:
        """Records passed over in the latest pass."""
        return self.failures.count

    @property
    def resolved(self) -> CorpusSettings:
        """The settings with every column named, for a command that must find the same ones and takes no labels."""
        columns = self.columns
        return replace(
            self.settings,
            text_column=columns.text,
            text_pair_column=columns.text_pair,
            image_column=columns.image,
            label_column=None,
        )

    def __iter__(self) -> Iterator[Example]:
        self.used = self.unread_labels = 0
        self.failures.begin()
        columns = tuple(dict.fromkeys([*self.columns.named, *self.kept]))
        with closing(records_of(self._reader, self.settings.shard, columns)) as records:
            for number, record in enumerate(records):
                if record.blank:
                    continue
                try:
                    example = self._example(number, record)
                except BadRecord as problem:
                    self.failures.unread(self._failure(number, record, str(problem)))
                    self._expect(0)
                    continue
                self.used += 1
                self._expect(len(example.samples))
                yield example
                if self.used == self.settings.limit:
                    return
        if not self.used and self.settings.shard is None:
            self.refuse_unused()

    def refuse_unused(self) -> NoReturn:
        """Raise DataError: there is no record, or none that can be used."""
        reason = f"none of {self.failed} records can be used" if self.failed else _EMPTY
        raise DataError(f"{self.name}: {reason}")

    def samples(self, views: Views = ()) -> Iterator[Sample]:
        """The samples of all examples, each followed by its views."""
        for example in self:
            for sample in example.samples:
                yield sample
                for view in views:
                    yield view(sample)

    def reject(self, sample: Sample, error: DataError) -> None:
        """Raise for a sample that cannot be used, or count and list it, once for all its views."""
        if "view" not in sample.fields or not self.failures.skips:
            self.failures.unusable(sample.id, error)

    def tell_columns(self) -> None:
        """Say in one line which columns were taken though the user did not name them and their names do not tell."""
        chosen = [
            f"{column!r} as the {role.replace('_', ' ')} (--{role.replace('_', '-')}-column)"
            for role, column in self.columns.single.items()
            if role not in ("id", column) and role not in self._named.single and column not in self.columns.others
        ]
        if chosen:
            say(f"{self.name}: taking the column {', '.join(chosen)}")

    @contextmanager
    def progress(self, description: str, views: Views = ()) -> Iterator[Bar]:
        """A bar of the records of one pass. Advance it by samples; each of the `views` of a sample counts as one more.

        If the number of records is not known and the bar is visible, a thread counts them, for the time left.
        """
        with bar(description, self.total) as drawn, self.advancing(drawn, views) as done:
            self.count_ahead(drawn)
            yield done

    @contextmanager
    def advancing(self, drawn: Bar, views: Views = ()) -> Iterator[Bar]:
        """A bar to advance by samples, as `progress` gives it, which moves `drawn` on by the records that are done."""
        self._done = done = RecordsDone(drawn, 1 + len(views))
        try:
            yield done
        finally:
            self._done = None

    def _expect(self, samples: int) -> None:
        """Tell the bar, if there is one, that a record with so many samples was read."""
        if self._done is not None:
            self._done.expect(samples)

    def count_ahead(self, progress: Bar) -> None:
        """Count the records in a thread for a bar that is visible, if their number is not known."""
        if self.total is None and progress.shown:
            threading.Thread(target=self._count, args=(progress,), daemon=True).start()

    def _count(self, progress: Bar) -> None:
        again = replace(self.settings, on_error="skip", failures=None)
        # The pass itself reports what is wrong with the corpus.
        with suppress(RecycleError):
            corpus = Corpus(again, form=self.form, read_label=self.read_label, labelled=self.labelled)
            count = sum(1 for _ in corpus)
            progress.update(total=count + corpus.failed)

    def _example(self, number: int, record: Record) -> Example:
        if record.problem is not None:
            raise BadRecord(record.problem)
        identity = self._id_of(record) or self._unnamed(number, record)
        samples = self.form.samples(record, self.columns, identity)
        kept = {column: record.values.get(column) for column in self.kept}
        if self.columns.labels:
            example = Example(identity, samples, labels=self._labels(record), place=record.place, kept=kept)
        else:
            example = Example(identity, samples, self._label(record), place=record.place, kept=kept)
        return example if self._expand is None else self._expanded(self._expand, example)

    def _expanded(self, expand: Expand, example: Example) -> Example:
        try:
            return expand(example)
        except BadLabel as problem:
            if self.labelled:
                raise
            self._pass_over(problem)
            return expand(replace(example, label=None, labels={}))

    def _id_of(self, record: Record) -> str | None:
        """The record's own id as text; None if it has none."""
        column = self.columns.id
        value = record.values.get(column) if column is not None else None
        return None if value is None or value == "" else sound(str(value), str(column))

    def _unnamed(self, number: int, record: Record) -> str:
        """The name of a record without an id; in a shard its place, since a shard counts from its own first record."""
        counted = str(number) if self.settings.shard is None else record.place
        return self.form.name(record, self.columns) or counted

    def _label(self, record: Record) -> Any:
        if self.columns.label is None:
            return None
        try:
            return self.read_label(record.values, self.columns.label)
        except BadRecord as problem:
            if self.labelled:
                raise
            if has_label(record.values, self.columns.label):
                self._pass_over(problem)
            return None

    def _pass_over(self, problem: BadRecord) -> None:
        """Count a label that cannot be read, and keep the first problem."""
        self.unread_label = self.unread_label if self.unread_labels else str(problem)
        self.unread_labels += 1

    def _labels(self, record: Record) -> dict[str, Any]:
        """The labels that the record has, at least one."""
        present = [column for column in self.columns.labels if has_label(record.values, column)]
        if not present:
            raise BadRecord(f"no label in any of the columns {', '.join(map(repr, self.columns.labels))}")
        return {column: self.read_label(record.values, column) for column in present}

    def _failure(self, number: int, record: Record, problem: str) -> Failure:
        own = record.values.get(self.columns.id) if self.columns.id is not None else None
        return Failure(
            shown(str(self._unnamed(number, record) if own in (None, "") else own)), f"{record.place}: {problem}"
        )
