"""Records that cannot be used: an error, or counted, listed in a file and passed over."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recycle_cli.errors import DataError, StorageError
from recycle_cli.reports import counted, say
from recycle_cli.settings import CorpusSettings


@dataclass(frozen=True)
class Failure:
    """A record that was passed over. `id` as its sample would have had it; `reason` names file and record."""

    id: str
    reason: str


class Failures:
    """What to do with records that cannot be used. `count` is of the latest reading of the corpus."""

    def __init__(self, settings: CorpusSettings, told: Callable[[Failure], None] | None = None) -> None:
        self.count = 0
        self.skips = settings.on_error == "skip"
        self._list = None if settings.failures is None else Path(settings.failures)
        self._told = told

    def begin(self) -> None:
        """Start again with the first record."""
        self.count = 0
        if self._list is not None:
            self._list.unlink(missing_ok=True)

    def unread(self, failure: Failure) -> None:
        """Note a record that could not be read. Raises DataError unless such records are skipped."""
        if not self.skips:
            raise DataError(f"{failure.reason}; correct the record, or pass over such records with --on-error skip")
        self._note(failure)

    def unusable(self, identity: str, error: DataError) -> None:
        """A sample that was read but cannot be used, such as an image that cannot be decoded."""
        if not self.skips:
            raise DataError(f"{error} (or pass over such records with --on-error skip)") from error
        self._note(Failure(identity, str(error)))

    def tell(self) -> None:
        """Say in one line how many were skipped, once all is read and prepared."""
        if self.count:
            where = f"; {self._list} lists them" if self._list is not None else ""
            say(f"skipped {counted(self.count, 'record')} that could not be used{where}")

    def _note(self, failure: Failure) -> None:
        self.count += 1
        if self._told is not None:
            self._told(failure)
        if self._list is None:
            return
        try:
            self._list.parent.mkdir(parents=True, exist_ok=True)
            with self._list.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"id": failure.id, "reason": failure.reason}) + "\n")
        except OSError as error:
            raise StorageError(f"--failures {self._list} cannot be written ({error.strerror}); name another") from error
