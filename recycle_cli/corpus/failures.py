"""Records that cannot be used: they are an error, or are counted, listed in a file and passed over."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from recycle_cli.disk import expanded, make_folder, opened, replacing
from recycle_cli.errors import DataError, StorageError, UsageError
from recycle_cli.reports import counted, say
from recycle_cli.settings import CorpusSettings

_PEEKED = 1 << 20
"""Bytes of an existing file that tell whether it is a list of failures."""


@dataclass(frozen=True)
class Failure:
    """A record that was passed over. `id`: that of its sample; `reason`: names file, record and problem."""

    id: str
    reason: str


class Failures:
    """Handles records that cannot be used. `count` is that of the latest pass over the corpus.

    Raises UsageError if the file for their list exists and is no such list.
    """

    def __init__(self, settings: CorpusSettings, told: Callable[[Failure], None] | None = None) -> None:
        self.count = 0
        self.skips = settings.on_error == "skip"
        self._list = None if settings.failures is None else Path(expanded(settings.failures))
        if self._list is not None:
            _check_ours(self._list)
        self._noted: list[str] = []
        self._told = told

    def begin(self) -> None:
        """Start again with the first record."""
        self.count = 0
        self._noted.clear()

    def unread(self, failure: Failure) -> None:
        """Note a record that could not be read. Raises DataError unless such records are skipped."""
        if not self.skips:
            raise DataError(f"{failure.reason}; correct the record, or pass over such records with --on-error skip")
        self.note(failure)

    def unusable(self, identity: str, error: DataError) -> None:
        """Note a sample that was read but cannot be used, such as an image that cannot be decoded. Raises DataError
        unless such records are skipped."""
        if not self.skips:
            raise DataError(f"{error} (or pass over such records with --on-error skip)") from error
        self.note(Failure(identity, str(error)))

    def tell(self) -> None:
        """Write the list when all is read and prepared, and say in one line how many records were skipped. If there
        were none, no list is written, and that of an earlier command is removed."""
        if self._list is not None:
            with _telling(self._list):
                self._write(self._list)
        if self.count:
            where = f"; {self._list} lists them" if self._list is not None else ""
            say(f"skipped {counted(self.count, 'record')} that could not be used{where}")

    def note(self, failure: Failure) -> None:
        """Count and list a record that is passed over."""
        self.count += 1
        if self._told is not None:
            self._told(failure)
        if self._list is not None:
            self._noted.append(json.dumps(asdict(failure)) + "\n")

    def _write(self, path: Path) -> None:
        if not self._noted:
            if path.is_file():
                _check_ours(path)
                path.unlink()
            return
        make_folder(path.parent)
        with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
            file.writelines(self._noted)


def _check_ours(path: Path) -> None:
    """Raise UsageError if there is something at the path that is no list of failures: it would be replaced."""
    with _telling(path):
        if not path.exists():
            return
        if not path.is_file():
            raise UsageError(f"--failures {path}: it exists and is no file; name another")
        with opened(path) as file:
            start = file.read(_PEEKED)
    lines = start.splitlines() if len(start) < _PEEKED else start.splitlines()[:-1]
    if not all(map(_is_failure, lines)) or (start and not lines):
        raise UsageError(f"--failures {path} is there already and is no list of failures; name another file")


def _is_failure(line: bytes) -> bool:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() == {one.name for one in fields(Failure)}


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = error.strerror or error
        raise StorageError(f"--failures {path} cannot be written ({said}); name another") from error
