"""Bench filling a store, from opening the corpus to the sealed store, beside the bare trunk and a plain loop."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from recycle_cli.bench.layout import prefix
from recycle_cli.bench.subject import SILENT, Subject, discard
from recycle_cli.bench.timing import WARM_UP, Clock, Run, Runner
from recycle_cli.keys import Sample
from recycle_cli.models import Inputs, SplitModel
from recycle_cli.runtime.devices import autocast, to_device
from recycle_cli.store import Store
from recycle_cli.trunk import WINDOW_IMAGES, Lacking

FEW = 64
"""Number of records in the warm-up."""

PLAIN_BATCH = 32


def runners(subject: Subject) -> dict[str, Runner]:
    """Runners of ours and the bare trunk at each cut, the plain loop at the first, and for images decoding alone."""
    found: dict[str, Runner] = {}
    if subject.images:
        found["precompute.decode"] = partial(_decode, subject, subject.all_cuts)
    cuts = subject.settings.cuts
    for cut in cuts:
        halves, group = subject.split((cut,)), prefix("precompute", cut, cuts)
        found[f"{group}.recycle"] = partial(_recycle, subject, halves)
        found[f"{group}.bare_trunk"] = partial(_bare_trunk, subject, halves, _batches(subject, halves))
        if cut == cuts[0]:
            found["precompute.plain_loop"] = partial(_plain_loop, subject, halves)
    return found


def ours(subject: Subject) -> Runner:
    """The runner of `recycle precompute` at the first cut."""
    return partial(_recycle, subject, subject.split(subject.settings.cuts[:1]))


def _recycle(subject: Subject, halves: SplitModel, repetition: int) -> Run:
    folder, clock = subject.folder(), Clock(subject.device)
    with clock.running():
        _, filled = subject.filled(folder / "acts.zarr", subject.records(_limit(repetition)).samples(), halves)
    discard(folder)
    return Run(clock.seconds, filled.tally.samples, bytes=filled.writer.bytes)


def _limit(repetition: int) -> int | None:
    return FEW if repetition == WARM_UP else None


def _decode(subject: Subject, halves: SplitModel, repetition: int) -> Run:
    """Time reading, decoding and resizing files, with as many threads as ours, and collating them to batches."""
    clock, samples = Clock(subject.device), 0
    with clock.running():
        for chunk in _chunks(subject.records(_limit(repetition)).samples(), WINDOW_IMAGES):
            halves.collate(halves.prepare(chunk))
            samples += len(chunk)
    return Run(clock.seconds, samples, bytes=0)


def _batches(subject: Subject, halves: SplitModel) -> list[Inputs]:
    """Make the same batches that filling an empty store makes."""
    folder = subject.folder()
    store = Store.create_or_open(str(folder / "empty.zarr"), halves.recipe, {})
    lacking = Lacking(store, halves, subject.filling, SILENT)
    batches = [keyed.batch.inputs for keyed in lacking.batches(subject.records().samples())]
    discard(folder)
    return batches


def _bare_trunk(subject: Subject, halves: SplitModel, batches: Sequence[Inputs], repetition: int) -> Run:
    clock = Clock(subject.device)
    chosen = batches[-1:] if repetition == WARM_UP else batches
    with clock.running(), autocast(subject.device, subject.model.precision):
        for batch in chosen:
            halves.trunk(to_device(batch, subject.device))
    return Run(clock.seconds, len(subject.data), bytes=0)


def _plain_loop(subject: Subject, halves: SplitModel, repetition: int) -> Run:
    """Time the loop that people write: 32 records at a time in corpus order, tokenised or decoded in the loop, passed
    through the trunk alone, and one `np.save` a batch."""
    folder, clock = subject.folder(), Clock(subject.device)
    samples = 0
    with clock.running():
        for number, chunk in enumerate(_chunks(subject.records(_limit(repetition)).samples(), PLAIN_BATCH)):
            batch = halves.collate(halves.prepare(chunk))
            with autocast(subject.device, subject.model.precision):
                (rows,) = halves.trunk(to_device(batch, subject.device)).values()
            np.save(folder / f"{number}.npy", rows.half().cpu().numpy())
            samples += len(chunk)
    written = sum(path.stat().st_size for path in folder.iterdir())
    discard(folder)
    return Run(clock.seconds, samples, bytes=written)


def _chunks(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    chunk: list[Sample] = []
    for sample in samples:
        chunk.append(sample)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
