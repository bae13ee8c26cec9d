"""Write segments: rows go to disk as they come, and one rename makes a whole segment visible."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import numpy as np

from recycle_cli.errors import UsageError
from recycle_cli.keys import Bytes16
from recycle_cli.recipe import Recipe
from recycle_cli.store.budget import DiskBudget
from recycle_cli.store.codecs import CODECS, Choice, choose
from recycle_cli.store.draft import Draft
from recycle_cli.store.dtypes import Array, EncodedRows
from recycle_cli.store.files import storage_errors
from recycle_cli.store.liveness import unique_id
from recycle_cli.store.origins import NOT_SAID, Origins
from recycle_cli.store.place import Drafts, Place

SEGMENT_BYTES = 256 << 20
SEGMENT_SECONDS = 300.0
"""A segment is also sealed at this age, so that a crash of a slow run loses minutes and not hours."""


class SegmentWriter:
    """Appends whole samples and seals them into segments of about `segment_bytes`. Use it as a context manager.

    Leaving the context seals what was appended even after an exception, since appended samples are complete.
    Raises StorageError if the disk is full or read-only.
    """

    def __init__(
        self,
        place: Place,
        recipe: Recipe,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        codec: str = "none",
        max_disk: int | None = None,
        origins: Origins = NOT_SAID,
    ) -> None:
        if codec not in (*CODECS, "auto"):
            raise UsageError(f"--codec {codec}: one of {', '.join(CODECS)}, auto was expected")
        self._place = place
        self._recipe = recipe
        self._cuts = sorted(recipe.cuts)
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._codec = Choice(codec, "asked for") if codec != "auto" else None
        self._budget = None if max_disk is None else DiskBudget(place.bytes_used, place.where(""), max_disk)
        self._origins = origins
        self._claim: Drafts | None = None
        self._draft: Draft | None = None
        self.samples = 0
        self.rows = 0
        self.bytes = 0

    def __enter__(self) -> Self:
        self._claim = self._place.drafts()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._claim is not None, "leaving a writer that was never entered"
        try:
            self.seal()
        finally:
            with storage_errors(self._place.where("")):
                self._claim.release()
            self._claim = None

    @property
    def codec(self) -> Choice | None:
        """The codec and the reason for it; None as long as `auto` has seen no rows."""
        return self._codec

    def append(self, keys: Bytes16, digests: Bytes16, lengths: Array, rows: Mapping[str, EncodedRows]) -> None:
        """Add samples: keys and digests (n, 16), lengths (n,), and for each cut the samples' rows one after another.

        Raises BarError if the store would grow beyond `max_disk`; everything appended before is sealed first.
        """
        assert self._claim is not None, "append to a SegmentWriter inside its `with` block"
        assert sorted(rows) == self._cuts, f"cuts {sorted(rows)}, the store has {self._cuts}"
        if self._codec is None:
            self._codec = choose(np.concatenate([encoded.values.reshape(-1) for encoded in rows.values()]))
        if self._budget is not None:
            self._stay_within(self._budget, len(keys), rows)
        with storage_errors(self._place.where("")):
            if self._draft is None:
                self._draft = Draft(self._claim.ready() / unique_id(), self._recipe.dtype, self._codec.codec, rows)
            before = self._draft.bytes
            self._draft.append(keys, digests, lengths, rows)
        self.samples += len(keys)
        self.rows += int(np.sum(lengths))
        self.bytes += self._draft.bytes - before
        if self._draft.bytes >= self._segment_bytes or self._draft.age >= self._segment_seconds:
            self.seal()

    def _stay_within(self, budget: DiskBudget, samples: int, rows: Mapping[str, EncodedRows]) -> None:
        """Seal and raise BarError if the coming rows might not fit."""
        drafted = self._draft.samples if self._draft is not None else 0
        coming = sum(encoded.nbytes for encoded in rows.values())
        if self._draft is not None:
            coming += self._draft.bytes
        if not budget.holds(coming, drafted + samples, self.samples - drafted):
            self.seal()
            budget.measure()
            raise budget.passed()

    def seal(self) -> None:
        """Make everything appended so far durable and visible."""
        draft, self._draft = self._draft, None
        if draft is None:
            return
        assert self._claim is not None, "a draft without a scratch folder"
        with storage_errors(self._place.where("")), draft.discarded_on_failure():
            if not draft.samples:
                draft.discard()
                return
            draft.finish(self._recipe.fingerprint, self._origins)
            self._claim.publish(draft.folder)
        if self._budget is not None:
            self._budget.measure()
