"""The corpus: records checked and turned into samples, again from the start for each pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from recycle_cli.corpus.columns import Columns, resolve, resolve_images
from recycle_cli.corpus.folders import ImageFiles, ImageFolder, ImageFolders
from recycle_cli.corpus.images import image_fields, path_of
from recycle_cli.corpus.records import BadRecord, Reader, Record, shown
from recycle_cli.corpus.sources import find_reader
from recycle_cli.corpus.texts import has_label, id_of, label_of, text_fields
from recycle_cli.errors import DataError, UsageError
from recycle_cli.keys import Label, Sample

OnError = Literal["fail", "skip"]

EMPTY = "is empty, expected at least one record"


@dataclass(frozen=True)
class Failure:
    """A record that was passed over. `id` as its sample would have had it; `reason` names file and record."""

    id: str
    reason: str


@dataclass
class Corpus:
    """Samples, streamed; iterate as often as needed, each pass starts anew and reports its failures anew.

    Iterating raises DataError at a record that cannot be used (`on_error="fail"`), at a file that cannot be read, and
    where no record at all can be used. `failed` counts the records passed over in the latest pass.
    """

    name: str
    columns: Columns
    total: int | None
    reader: Reader
    limit: int | None = None
    labelled: bool = False
    on_error: OnError = "fail"
    on_failure: Callable[[Failure], None] | None = None
    multi_label: bool = False
    failed: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[Sample]:
        given = self.failed = 0
        with closing(self.reader.records(self.columns.named)) as records:
            for number, record in enumerate(records):
                if record.blank:
                    continue
                try:
                    sample = self._sample(number, record)
                except BadRecord as problem:
                    self._fail(number, record, str(problem))
                    continue
                given += 1
                yield sample
                if given == self.limit:
                    return
        if not given:
            raise DataError(f"{self.name}: " + (f"none of {self.failed} records can be used" if self.failed else EMPTY))

    def _sample(self, number: int, record: Record) -> Sample:
        if record.problem is not None:
            raise BadRecord(record.problem)
        image = self.columns.image
        fields = text_fields(record.values, self.columns) if image is None else image_fields(record, image)
        identity = id_of(record.values, self.columns.id) or self._unnamed(number, record)
        if self.columns.targets:
            return Sample(identity, fields, labels=self._labels(record))
        return Sample(identity, fields, self._label(record))

    def _unnamed(self, number: int, record: Record) -> str:
        """What a record is called that has no id: the path of an image, else its number."""
        return (self.columns.image and path_of(record, self.columns.image)) or str(number)

    def _label(self, record: Record) -> Label | None:
        if self.columns.label is None:
            return None
        try:
            return label_of(record.values, self.columns.label, multi_label=self.multi_label)
        except BadRecord:
            if self.labelled:
                raise
            return None

    def _labels(self, record: Record) -> dict[str, Label]:
        """The labels that the record has, one at least."""
        values, columns = record.values, self.columns.targets
        present = [column for column in columns if has_label(values, column)]
        found = {column: label_of(values, column, multi_label=self.multi_label) for column in present}
        if not found:
            raise BadRecord(f"no label in any of the columns {', '.join(map(repr, columns))}")
        return found

    def _fail(self, number: int, record: Record, problem: str) -> None:
        # A file that is a record of its own has no number.
        where = f"{record.file}, record {record.number}" if record.number else record.file
        reason = f"{where}: {problem}"
        if self.on_error == "fail":
            _stop(reason)
        self.failed += 1
        if self.on_failure is not None:
            own = record.values.get(self.columns.id) if self.columns.id is not None else None
            self.on_failure(Failure(shown(str(self._unnamed(number, record) if own in (None, "") else own)), reason))


def _stop(reason: str) -> NoReturn:
    raise DataError(f"{reason}; correct the record, or pass over such records with --on-error skip")


def open_corpus(
    source: str | Sequence[str],
    columns: Columns | None = None,
    *,
    limit: int | None = None,
    labelled: bool = False,
    on_error: OnError = "fail",
    on_failure: Callable[[Failure], None] | None = None,
    images: bool = False,
    multi_label: bool = False,
) -> Corpus:
    """Open a corpus for streaming and decide its columns; nothing but its first records is read.

    source: a file (.csv .tsv .jsonl .ndjson .json .txt, also compressed; .parquet .arrow), a glob, several of those, a
    folder written by `save_to_disk`, or `hub:NAME[:config][:split]`. limit: at most so many samples. labelled: every
    record must have a label; otherwise one that is missing is None. images: the samples are images, and the source may
    also be image files, or folders of them, one folder a class. multi_label: a record may have any number of labels.
    Raises DataError, UsageError.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: expected at least 1")
    reader = find_reader(source, images=images)
    if labelled and isinstance(reader, ImageFolder | ImageFolders | ImageFiles) and not reader.classes:
        raise DataError(f"{reader.name}: images without folders of classes have no labels; expected FOLDER/CLASS/IMAGE")
    schema = reader.schema()
    if not schema:
        raise DataError(f"{reader.name}: {EMPTY}")
    decide = resolve_images if images else resolve
    resolved = decide(columns or Columns(), schema, reader.name, labelled=labelled)
    total = reader.total if limit is None or reader.total is None else min(limit, reader.total)
    return Corpus(reader.name, resolved, total, reader, limit, labelled, on_error, on_failure, multi_label)
