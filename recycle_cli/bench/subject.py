"""What is measured: a corpus, a model, and a store of the one made with the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import numpy as np
import torch

from recycle_cli.batches.inputs import Images, RawInputs, Source
from recycle_cli.batches.stored import Indices
from recycle_cli.bench.layout import predict_cuts
from recycle_cli.bench.synthetic import write_corpus, write_images, write_model
from recycle_cli.errors import UsageError
from recycle_cli.intake import Intake
from recycle_cli.keys import Sample
from recycle_cli.keys import Views as Views
from recycle_cli.models import Network, SplitModel, TaskLayer, open_network, takes_images
from recycle_cli.precompute import Tally, fill
from recycle_cli.reports import Bar
from recycle_cli.runtime.devices import batch_tokens_on, device_of
from recycle_cli.settings import BenchSettings, CorpusSettings, ModelSettings, PrecomputeSettings
from recycle_cli.settings.measuring import BENCH_IMAGES, BENCH_TEXTS
from recycle_cli.store import SegmentWriter, Store
from recycle_cli.training.labelled import Labelled, read_labelled

CLASSES = ("0", "1")
SILENT = Bar()


@dataclass(frozen=True)
class Written:
    """What a filling did."""

    writer: SegmentWriter
    tally: Tally


@dataclass
class Subject:
    """A corpus read into memory and a model, with room on a disk for what the measurements write."""

    corpus: CorpusSettings
    model: ModelSettings
    settings: BenchSettings
    scratch: Path

    @cached_property
    def device(self) -> torch.device:
        return device_of(self.model.device)

    @property
    def batch_tokens(self) -> int:
        """Padded tokens a batch, as `recycle precompute` would take on this device."""
        return batch_tokens_on(self.device, self.settings.batch_tokens)

    @cached_property
    def filling(self) -> PrecomputeSettings:
        return PrecomputeSettings(self.settings.cuts, self.settings.dtype, self.batch_tokens, codec=self.settings.codec)

    @cached_property
    def data(self) -> Labelled:
        """The records with labels of our own, which cost what real ones cost: so a corpus need not have any."""
        records = [
            Sample(sample.id, sample.fields, CLASSES[number % len(CLASSES)])
            for number, sample in enumerate(self.intake())
        ]
        if len(records) < 2 * self.settings.batch_size:
            raise UsageError(
                f"{', '.join(self.corpus.source)}: {len(records)} records are too few to measure with batches of "
                f"{self.settings.batch_size}; give more records or a smaller --batch-size"
            )
        return read_labelled(records, keep=True)

    @cached_property
    def images(self) -> bool:
        """Whether the records are images, and not texts."""
        return takes_images(self.model)

    def intake(self, limit: int | None = None, views: Views = ()) -> Intake:
        """The records, read anew, each followed by its `views`; `limit`: only the first so many."""
        return Intake(replace(self.corpus, limit=limit or self.corpus.limit), images=self.images, views=views)

    def load(self) -> Network:
        """The model afresh, with a new task layer: freezing one copy leaves the others alone."""
        return open_network(self.model, TaskLayer("single_label_classification", CLASSES), seed=self.settings.seed)

    def split(self, cuts: Sequence[str], network: Network | None = None) -> SplitModel:
        """The model cut at `cuts`, on its device; of `network` where a copy is at hand."""
        halves = (network or self.load()).split(cuts, self.settings.dtype)
        halves.model.to(self.device)
        return halves

    @cached_property
    def network(self) -> Network:
        """The copy that `all_cuts` cuts."""
        return self.load()

    @cached_property
    def all_cuts(self) -> SplitModel:
        """The model cut wherever anything is measured."""
        predicted = predict_cuts(self.settings.cuts) if "predict" in self.settings.verbs else ()
        return self.split(tuple(dict.fromkeys((*self.settings.cuts, *predicted))), self.network)

    def resolve(self, cut: str) -> str:
        """A cut's canonical name."""
        return self.network.resolve(cut, self.all_cuts)

    @cached_property
    def raw(self) -> RawInputs:
        """All texts, tokenised."""
        return RawInputs.of(self.all_cuts, self.data.samples)

    @cached_property
    def lengths(self) -> Indices:
        """Rows of each record (n,): its tokens, or one for an image."""
        return np.ones(len(self.data), dtype=np.int64) if self.images else self.raw.lengths

    def inputs(self, halves: SplitModel, members: Indices, views: Views = ()) -> Source:
        """Records for training without a store: texts tokenised beforehand, images decoded (and augmented) as they
        come."""
        if self.images:
            return Images.of(halves, [self.data.samples[place] for place in members.tolist()], views)
        return RawInputs(halves, [self.raw.prepared[place] for place in members.tolist()], self.lengths[members])

    @cached_property
    def store(self) -> Store:
        """All records at all cuts."""
        store, _ = self.filled(self.scratch / "all.zarr", self.intake(), self.all_cuts)
        return store

    @cached_property
    def positions(self) -> Indices:
        """Places of the records in the store."""
        return self.store.lookup(self.data.keys, self.data.digests)

    def filled(self, folder: Path, samples: Intake, halves: SplitModel) -> tuple[Store, Written]:
        """A new store, filled as `recycle precompute` fills it, and what its writer and its tally counted."""
        store = Store.create_or_open(
            str(folder), halves.recipe.computed_in(self.model.precision), {"model": self.model.name}
        )
        tally = Tally()
        writer = fill(store, samples, halves, self.model, self.filling, tally, SILENT)
        return store, Written(writer, tally)

    def folder(self) -> Path:
        """A new empty folder."""
        return Path(mkdtemp(dir=self.scratch))


def subject_of(corpus: CorpusSettings, model: ModelSettings, settings: BenchSettings, scratch: Path) -> Subject:
    """The user's corpus and model; a corpus without a source and a model without a name are made up."""
    images = bool(model.name) and takes_images(model)
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
    """Remove what a measurement wrote."""
    rmtree(folder, ignore_errors=True)
