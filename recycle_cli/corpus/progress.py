"""Progress in records, whatever number of samples each has."""

from collections import deque

from recycle_cli.reports import Bar


class RecordsDone(Bar):
    """Moves a bar on by the records that are done with, while it is told of samples.

    Samples may be done in another order than they were read; a record counts once as many samples are done as there
    are up to its last. `copies`: how often a sample is told of, once for itself and once for each of its views.
    """

    def __init__(self, drawn: Bar, copies: int = 1) -> None:
        self._drawn, self._copies = drawn, copies
        self.shown = drawn.shown
        self._read, self._done = 0, 0
        self._ends: deque[int] = deque()

    def expect(self, samples: int) -> None:
        """A record with so many samples was read; 0 if it cannot be used."""
        self._read += samples * self._copies
        self._ends.append(self._read)

    def update(self, advance: int = 0, *, note: str | None = None, total: int | None = None) -> None:
        """Advance by so many samples."""
        self._done += advance
        records = 0
        while self._ends and self._ends[0] <= self._done:
            self._ends.popleft()
            records += 1
        self._drawn.update(records, note=note, total=total)
