"""What is measured: a corpus, a model, and a store of the one made with the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import torch

from recycle_cli.batches import Indices
from recycle_cli.bench.layout import predict_cuts
from recycle_cli.bench.settings import RECORDS, BenchSettings
from recycle_cli.bench.synthetic import write_corpus, write_model
from recycle_cli.devices import batch_tokens_on, device_of
from recycle_cli.errors import UsageError
from recycle_cli.inputs import RawInputs
from recycle_cli.intake import Intake
from recycle_cli.keys import Sample
from recycle_cli.labelled import Labelled, read_labelled
from recycle_cli.models import Loaded, SplitModel, default_max_length, load, split
from recycle_cli.precompute import Tally, fill
from recycle_cli.reports import Bar
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings
from recycle_cli.store import SegmentWriter, Store

CLASSES = ("0", "1")
SILENT = Bar(None, None)


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
        return PrecomputeSettings(self.settings.cuts, self.settings.dtype, self.batch_tokens)

    @cached_property
    def data(self) -> Labelled:
        """The records with labels of our own, which cost what real ones cost: so a corpus need not have any."""
        records = [
            Sample(sample.id, sample.fields, CLASSES[number % len(CLASSES)])
            for number, sample in enumerate(Intake(self.corpus))
        ]
        if len(records) < 2 * self.settings.batch_size:
            raise UsageError(
                f"{', '.join(self.corpus.source)}: {len(records)} records are too few to measure with batches of "
                f"{self.settings.batch_size}; give more records or a smaller --batch-size"
            )
        return read_labelled(records, keep=True)

    def load(self) -> Loaded:
        """The model afresh, with a new task layer: freezing one copy leaves the others alone."""
        model = self.model
        return load(
            model.name,
            labels=CLASSES,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            seed=self.settings.seed,
        )

    def split(self, cuts: Sequence[str], loaded: Loaded | None = None) -> SplitModel:
        """The model cut at `cuts`, on its device; of `loaded` where a copy is at hand."""
        loaded = loaded or self.load()
        length = self.model.max_length or default_max_length(loaded)
        halves = split(loaded, cuts, max_length=length, dtype=self.settings.dtype)
        halves.model.to(self.device)
        return halves

    @cached_property
    def all_cuts(self) -> SplitModel:
        """The model cut wherever anything is measured."""
        predicted = predict_cuts(self.settings.cuts) if "predict" in self.settings.verbs else ()
        return self.split(tuple(dict.fromkeys((*self.settings.cuts, *predicted))))

    @cached_property
    def raw(self) -> RawInputs:
        """All records, tokenised."""
        return RawInputs.of(self.all_cuts, self.data.samples)

    @cached_property
    def store(self) -> Store:
        """All records at all cuts."""
        store, _ = self.filled(self.scratch / "all.zarr", Intake(self.corpus), self.all_cuts)
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
    records = corpus.limit or RECORDS
    if not model.name:
        model = replace(model, name=str(write_model(scratch / "model", settings.seed)))
    if not corpus.source:
        corpus = CorpusSettings((str(write_corpus(scratch / "texts.jsonl", records, settings.seed)),))
    return Subject(replace(corpus, limit=records), model, settings, scratch)


def discard(folder: Path) -> None:
    """Remove what a measurement wrote."""
    rmtree(folder, ignore_errors=True)
