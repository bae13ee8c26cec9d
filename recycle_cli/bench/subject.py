"""The subject of a bench: a corpus, a model, and a store of the corpus made with the model."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import numpy as np
import torch

from recycle_cli.batches import Images, Indices, RawInputs, RowSource
from recycle_cli.bench.layout import predict_cuts
from recycle_cli.bench.synthetic import write_corpus, write_images, write_model
from recycle_cli.corpus import Corpus, Views
from recycle_cli.errors import UsageError
from recycle_cli.keys import Sample
from recycle_cli.models import NamedModel, Network, Preprocessor, SplitModel
from recycle_cli.reports import Bar
from recycle_cli.runtime.devices import batch_tokens_on, device_of
from recycle_cli.settings import BenchSettings, CorpusSettings, ModelSettings, PrecomputeSettings
from recycle_cli.settings.measuring import BENCH_IMAGES, BENCH_TEXTS
from recycle_cli.store import Store
from recycle_cli.tasks import Classification, Task, read_corpus, read_samples, task_of_samples
from recycle_cli.training import LabelledData, read_one
from recycle_cli.trunk import Filled, fill

CLASSES = ("0", "1")
SILENT = Bar()
WHOLE = "0"
"""The cut at which the whole model trains."""


@dataclass
class Subject:
    """A corpus read into memory, a model, and a scratch folder for the files that measurements write."""

    corpus: CorpusSettings
    model: ModelSettings
    settings: BenchSettings
    scratch: Path

    @cached_property
    def named(self) -> NamedModel:
        """The model, not loaded yet."""
        return NamedModel(self.model)

    @cached_property
    def device(self) -> torch.device:
        return device_of(self.model.device)

    @property
    def batch_tokens(self) -> int:
        """Padded tokens a batch, by default as for `recycle precompute` on this device."""
        return batch_tokens_on(self.device, self.settings.batch_tokens)

    @cached_property
    def filling(self) -> PrecomputeSettings:
        settings = self.settings
        return PrecomputeSettings(settings.cuts, settings.dtype, batch_tokens=self.batch_tokens, codec=settings.codec)

    @cached_property
    def task(self) -> Task:
        """The task that the heads train for: classification of records as they are, unless one is named."""
        return task_of_samples(self.settings.samples, self.named) or Classification()

    @cached_property
    def data(self) -> LabelledData:
        """The records with the labels of the task that was named. Without one, labels are invented, which cost as much
        as real ones, so that a corpus needs none."""
        if self.settings.samples.task is None:
            found = [
                replace(example, label=CLASSES[number % len(CLASSES)]) for number, example in enumerate(self.records())
            ]
        else:
            found = list(read_corpus(self.corpus, self.task, self._preprocessor, labelled=self.task.needs_labels))
        data = read_one(found, self.task, self._preprocessor)
        if len(data) < 2 * self.settings.batch_size:
            raise UsageError(
                f"{', '.join(self.corpus.source)}: {len(data)} records are too few to measure with batches of "
                f"{self.settings.batch_size}; give more records or a smaller --batch-size"
            )
        return data

    @cached_property
    def _preprocessor(self) -> Callable[[], Preprocessor]:
        return cache(self.named.preprocessor)

    @cached_property
    def images(self) -> bool:
        """Whether the records are images and not texts."""
        return self.named.modality == "image"

    def records(self, limit: int | None = None) -> Corpus:
        """Read the records again. `limit` takes only the first so many."""
        corpus = replace(self.corpus, limit=limit or self.corpus.limit)
        return read_samples(corpus, self.settings.samples, self.named)

    def load(self) -> Network:
        """Load a new copy of the model with a new task layer, so that freezing one copy does not affect the others."""
        names = CLASSES if self.settings.samples.task is None else self.data.names
        return self.named.open(self.task.layer(names), seed=self.settings.seed)

    def split(self, cuts: Sequence[str], network: Network | None = None) -> SplitModel:
        """Split `network`, or a new copy of the model, at `cuts`, whose rows are stored, and move it to the device."""
        halves = (network or self.load()).stored(cuts, self.settings.dtype)
        halves.model.to(self.device)
        return halves

    def whole(self, network: Network | None = None) -> SplitModel:
        """`network`, or a new copy of the model, of which nothing is frozen, on the device."""
        halves = (network or self.load()).split((WHOLE,), self.settings.dtype)
        halves.model.to(self.device)
        return halves

    @cached_property
    def network(self) -> Network:
        """The copy of the model that `all_cuts` splits."""
        return self.load()

    @cached_property
    def all_cuts(self) -> SplitModel:
        """The model split at all cuts at which anything is measured."""
        predicted = predict_cuts(self.settings.cuts) if {"predict", "serve"} & {*self.settings.verbs} else ()
        return self.split(tuple(dict.fromkeys((*self.settings.cuts, *predicted))), self.network)

    def resolve(self, cut: str) -> str:
        """Return a cut's canonical name."""
        return self.network.resolve(cut, self.all_cuts)

    @cached_property
    def raw(self) -> RawInputs:
        """All texts, tokenised."""
        return RawInputs.of(self.all_cuts.preprocessor, self.data.samples)

    @cached_property
    def lengths(self) -> Indices:
        """The number of rows of each record (n,): its tokens, or 1 for an image."""
        return np.ones(len(self.data), dtype=np.int64) if self.images else self.raw.lengths

    def inputs(self, halves: SplitModel, members: Indices, views: Views = ()) -> RowSource:
        """A source of records for training without a store: tokenised beforehand, or images decoded (and augmented) on
        the fly."""
        if self.images:
            return Images(halves.preprocessor, [self.data.samples[place] for place in members.tolist()], views)
        prepared = [self.raw.prepared[place] for place in members.tolist()]
        return RawInputs(halves.preprocessor, prepared, self.lengths[members])

    @cached_property
    def store(self) -> Store:
        """A store of all records at all cuts."""
        store, _ = self.filled(self.scratch / "all.zarr", self.records().samples(), self.all_cuts)
        return store

    @cached_property
    def positions(self) -> Indices:
        """Positions of the records in the store."""
        return self.store.lookup(self.data.keys, self.data.digests)

    def filled(self, folder: Path, samples: Iterable[Sample], halves: SplitModel) -> tuple[Store, Filled]:
        """Fill a new store as `recycle precompute` does; return it with its writer and counts."""
        store = Store.create_or_open(
            str(folder), halves.recipe.computed_in(self.model.precision), {"model": self.model.name}
        )
        return store, fill(store, samples, halves, self.filling, SILENT)

    def folder(self) -> Path:
        """Make a new empty folder."""
        return Path(mkdtemp(dir=self.scratch))


def subject_of(corpus: CorpusSettings, model: ModelSettings, settings: BenchSettings, scratch: Path) -> Subject:
    """Make the subject of the user's corpus and model, with a synthetic one for each that is not given."""
    images = bool(model.name) and NamedModel(model).modality == "image"
    records = corpus.limit or (BENCH_IMAGES if images else BENCH_TEXTS)
    if not model.name:
        model = replace(model, name=str(write_model(scratch / "model", settings.seed)))
    if not corpus.source:
        made = (
            write_images(scratch / "images", records, settings.seed)
            if images
            else write_corpus(scratch / "texts.jsonl", records, settings.seed)
        )
        corpus = CorpusSettings((str(made),))
    return Subject(replace(corpus, limit=records), model, settings, scratch)


def discard(folder: Path) -> None:
    """Remove a folder that a measurement wrote."""
    rmtree(folder, ignore_errors=True)
