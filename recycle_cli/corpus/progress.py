"""Progress in records, however many samples each has."""

from collections import deque

from recycle_cli.reports import Bar


class RecordsDone(Bar):
    """Advances a bar by records while it is advanced by samples.

    A record counts when as many samples are done as were read up to its last one, since samples may be done in another
    order. `copies`: how often each sample is counted, once for itself and once for each of its views.
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
