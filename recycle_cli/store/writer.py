"""Write segments: rows go to disk as they come, and all of a segment becomes visible in one rename."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from recycle_cli.keys import Bytes16
from recycle_cli.store.draft import Draft
from recycle_cli.store.dtypes import Array, Encoded
from recycle_cli.store.files import storage_errors, sync_folder
from recycle_cli.store.layout import SCRATCH, SEGMENTS
from recycle_cli.store.liveness import Claim, unique_id

SEGMENT_BYTES = 256 << 20
SEGMENT_SECONDS = 300.0
"""A segment is sealed at this age too, so that a crash of a slow run loses minutes, not hours."""


class SegmentWriter:
    """Appends whole samples and seals them into segments of about `segment_bytes`. Use it as a context manager.

    Leaving the context seals what was appended, whatever the reason for leaving: appended samples are whole.
    Raises StorageError where the disk is full or read-only.
    """

    def __init__(
        self,
        path: Path,
        fingerprint: str,
        dtype: str,
        cuts: Sequence[str],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
    ) -> None:
        self._path = path
        self._fingerprint = fingerprint
        self._dtype = dtype
        self._cuts = sorted(cuts)
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._claim: Claim | None = None
        self._draft: Draft | None = None
        self.samples = 0
        self.rows = 0
        self.bytes = 0

    def __enter__(self) -> Self:
        with storage_errors(self._path):
            self._claim = Claim(self._path / SCRATCH)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._claim is not None, "leaving a writer that was never entered"
        try:
            self.seal()
        finally:
            with storage_errors(self._path):
                self._claim.release()
            self._claim = None

    def append(self, keys: Bytes16, digests: Bytes16, lengths: Array, rows: Mapping[str, Encoded]) -> None:
        """Add samples: keys and digests (n, 16), lengths (n,), and per cut the samples' rows one after another."""
        assert self._claim is not None, "append to a SegmentWriter inside its `with` block"
        assert sorted(rows) == self._cuts, f"cuts {sorted(rows)}, the store has {self._cuts}"
        with storage_errors(self._path):
            if self._draft is None:
                self._draft = Draft(self._claim.folder / unique_id(), self._dtype, rows)
            before = self._draft.bytes
            self._draft.append(keys, digests, lengths, rows)
        self.samples += len(keys)
        self.rows += int(np.sum(lengths))
        self.bytes += self._draft.bytes - before
        if self._draft.bytes >= self._segment_bytes or self._draft.age >= self._segment_seconds:
            self.seal()

    def seal(self) -> None:
        """Make everything appended so far durable and visible."""
        draft, self._draft = self._draft, None
        if draft is None:
            return
        with storage_errors(self._path), draft.discarded_on_failure():
            if not draft.samples:
                draft.discard()
                return
            draft.finish(self._fingerprint)
            visible = self._path / SEGMENTS / draft.folder.name
            draft.folder.rename(visible)
        with storage_errors(self._path):
            sync_folder(visible.parent)
            sync_folder(draft.folder.parent)
