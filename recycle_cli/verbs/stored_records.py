"""Which records of a corpus a store holds, and removing them: the commands that know a sample by its content."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recycle_cli.corpus import FORMS, Columns, Corpus, Views, text_in_file
from recycle_cli.corpus.records import BadRecord, Record
from recycle_cli.errors import UsageError
from recycle_cli.keys import Bytes16, Sample, keys_of
from recycle_cli.reports import bar
from recycle_cli.settings import CorpusSettings, ModelSettings, SampleSettings, ViewSettings, words_of
from recycle_cli.store import RECORD, VIEW, Store, find, remove, views_in

BATCH_SAMPLES, BATCH_BYTES = 4096, 64 << 20


@dataclass(frozen=True)
class KeyedRecords:
    """Some samples: the number of the record that each belongs to, its id, its key and its digest (n, 16)."""

    records: list[int]
    ids: list[str]
    keys: Bytes16
    digests: Bytes16


@dataclass(frozen=True)
class Wanted:
    """What is looked for in a store: the samples that the records of a corpus are, or are for a task, and of images as
    many views as are asked for. `remove` looks for all views that the store says it holds, too."""

    corpus: CorpusSettings
    samples: SampleSettings
    views: ViewSettings


def remove_records(wanted: Wanted, path: str, *, dry_run: bool = False) -> dict[str, Any]:
    """Remove the records of a corpus from a store.

    Returns what `recycle_cli.store.remove` does, with `records`, `failed_records` and `unknown_records`, which count
    all of the corpus, those that cannot be read, and those of which the store held nothing, and `other_origins`: the
    ways (`recycle_cli.store.origins`) in which the store's samples were made of records and that were not looked for.
    """
    store = Store.open(path)
    records = _corpus(wanted, store)
    names = sorted({*views_in(store.origins), *_names_of_views(wanted.views, store)})
    views = [partial(_view, name=name) for name in names]
    numbers: set[int] = set()
    held: set[int] = set()

    def keys() -> Iterator[Bytes16]:
        for batch in _batches(records, views, "remove"):
            numbers.update(batch.records)
            found = np.flatnonzero(store.lookup(batch.keys, batch.digests) >= 0)
            held.update(batch.records[place] for place in found.tolist())
            yield batch.keys

    removed = remove(store, keys(), dry_run=dry_run)
    records.failures.tell()
    counts = {"records": len(numbers), "failed_records": records.failed, "unknown_records": len(numbers - held)}
    looked_for = {" ".join(words_of(wanted.samples)) or RECORD, *(f"{VIEW}{name}" for name in names)}
    return {"store": path, **counts, "other_origins": sorted(store.origins - looked_for), **removed}


def contained(wanted: Wanted, path: str) -> dict[str, Any]:
    """Which records of a corpus a store holds.

    Returns {store, records, held, missing, failed_records, held_records, missing_records}, the last two with ids.
    """
    store = Store.open(path)
    records = _corpus(wanted, store)
    names: dict[int, str] = {}
    absent: set[int] = set()
    views = [partial(_view, name=name) for name in _names_of_views(wanted.views, store)]
    for batch in _batches(records, views, "contains"):
        names.update(zip(batch.records, batch.ids, strict=True))
        lacking = np.flatnonzero(store.lookup(batch.keys, batch.digests) < 0)
        absent.update(batch.records[place] for place in lacking.tolist())
    records.failures.tell()
    return {
        "store": path,
        "records": len(names),
        "held": len(names) - len(absent),
        "missing": len(absent),
        "failed_records": records.failed,
        "held_records": [name for number, name in names.items() if number not in absent],
        "missing_records": [name for number, name in names.items() if number in absent],
    }


def found(path: str, *, text: str | None, text_pair: str | None, file: str | None) -> dict[str, Any]:
    """Where a store holds one text, pair of texts or image; see `recycle_cli.store.find`."""
    store = Store.open(path)
    if (text is None) == (file is None):
        raise UsageError("name what to look for: either --text or --file")
    form = FORMS.get(store.recipe.modality)
    values: dict[str, Any] = {"text": text, "text_pair": text_pair}
    if file is not None:
        values |= {"image": _content(file), "text": text_in_file(file) if store.recipe.modality == "text" else None}
    if store.recipe.modality == "image" and file is None:
        raise UsageError(f"{path} holds images; name one with --file")
    if form is None:
        raise UsageError(f"{path} holds samples of the kind {store.recipe.modality!r}, which cannot be looked up")
    columns = Columns(text="text", text_pair="text_pair" if text_pair is not None else None, image="image")
    try:
        (sample,) = form.samples(Record(file or "--text", 1, values), columns, "")
    except BadRecord as problem:
        raise UsageError(f"{file or '--text'}: {problem}") from None
    return find(store, *keys_of([sample]))


def _content(file: str) -> bytes:
    try:
        if not Path(file).is_file():
            raise UsageError(f"--file {file}: no such file")
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"--file {file}: cannot be read ({error.strerror})") from error


def _corpus(wanted: Wanted, store: Store) -> Corpus:
    form = FORMS.get(store.recipe.modality)
    if form is None:
        raise UsageError(
            f"{store.path} holds samples of the kind {store.recipe.modality!r}, of which no corpus can be read"
        )
    plain = wanted.samples == SampleSettings()
    corpus = Corpus(wanted.corpus, form=form) if plain else _samples_of_task(wanted, store)
    corpus.tell_columns()
    return corpus


def _samples_of_task(wanted: Wanted, store: Store) -> Corpus:
    """The corpus as a task's samples; the store's own tokenizer says where windows of long texts begin and end."""
    from recycle_cli.models import NamedModel  # loads torch, which plain records do not need
    from recycle_cli.tasks import read_samples

    if "model" not in store.provenance:
        raise UsageError(f"{store.path} does not say which model made it, so its windows cannot be found again")
    model = NamedModel(ModelSettings(name="")).found_again(store.provenance, store.recipe, named=False)
    return read_samples(wanted.corpus, wanted.samples, model)


def _names_of_views(settings: ViewSettings, store: Store) -> list[str]:
    """The views that are asked for. Raises UsageError if the store holds no images."""
    if settings == ViewSettings():
        return []
    from recycle_cli.models import names_of_views, views_of  # loads torch, which the plain samples do not need

    views_of(settings, store.recipe.modality)
    return names_of_views(settings)


def _view(sample: Sample, name: str) -> Sample:
    return replace(sample, fields={**sample.fields, "view": name})


def _batches(corpus: Corpus, views: Views, what: str) -> Iterator[KeyedRecords]:
    """The samples of a corpus with their views, as many at a time as fit the memory."""
    with bar(what, corpus.total) as progress:
        records: list[int] = []
        samples: list[Sample] = []
        size = 0
        for number, example in enumerate(corpus):
            for sample in example.samples:
                every = [sample, *(view(sample) for view in views)]
                samples += every
                records += [number] * len(every)
                size += sum(len(content) for content in sample.fields.values())
            progress.update(1)
            if len(samples) >= BATCH_SAMPLES or size >= BATCH_BYTES:
                yield KeyedRecords(records, [sample.id for sample in samples], *keys_of(samples))
                records, samples, size = [], [], 0
        if samples:
            yield KeyedRecords(records, [sample.id for sample in samples], *keys_of(samples))
