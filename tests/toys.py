"""Three tasks and a modality that the package does not have, made here of its contracts alone."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from recycle_cli.batches import Shuffled
from recycle_cli.corpus import TEXT, Columns
from recycle_cli.corpus.columns import resolve_common
from recycle_cli.corpus.records import BadRecord
from recycle_cli.corpus.sources import find_reader
from recycle_cli.corpus.texts import text_of
from recycle_cli.keys import Sample
from recycle_cli.models import Layer, Modality, Network, SplitModel, TaskLayer, bytes_per_sample
from recycle_cli.models.eval_mode import evaluating, freeze
from recycle_cli.models.identity import weights_digest
from recycle_cli.recipe import Recipe, canonical_digest
from recycle_cli.settings import (
    ClassificationSettings,
    SampleSettings,
    TaskSettings,
    WindowedSettings,
    WindowSettings,
)
from recycle_cli.tasks import IGNORED, Classification, DenseScores, Encoded, Targets, Task, TaskKind, in_windows

# A task with an output for each row


@dataclass(frozen=True)
class TaggingSettings(TaskSettings):
    """No options."""


def tags_of(values, column):
    """Tags with spaces between them, one a word."""
    if not values.get(column):
        raise BadRecord(f"no tags in column {column!r}")
    return tuple(values[column].split())


class TagEncoder:
    """A target for each row: the tag of the word that its piece begins in, none for special tokens."""

    def __init__(self, names, preprocessor):
        self.names, self.preprocessor = names, preprocessor
        self.rows, self.lengths, self.known = [], [], []

    def add(self, example, label):
        (spans,) = self.preprocessor().spans([example.sample])
        words = np.cumsum([0, *(len(word) + 1 for word in example.sample.fields["text"].split(" "))])
        row = [
            None if field < 0 else label[int(np.searchsorted(words, first, "right")) - 1] for field, first, _ in spans
        ]
        self.rows += row
        self.lengths.append(len(row))
        self.known.append(label is not None)

    def finish(self):
        names = list(self.names or sorted({tag for tag in self.rows if tag is not None}))
        values = np.array([IGNORED if tag is None else names.index(tag) for tag in self.rows], dtype=np.int64)
        return Encoded(Targets(values, np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)), names)


class RowScores:
    """Rows that were right, of those that have a tag: nothing but the best class of each row is kept."""

    def __init__(self):
        self.best = {}

    def add(self, members, outputs):
        for member, own in zip(members.tolist(), outputs.each(), strict=True):
            self.best[member] = own.argmax(dim=1)

    def figures(self, targets):
        best = torch.cat([self.best[member] for member in sorted(self.best)])
        wanted = torch.from_numpy(targets.values)
        counted = wanted != IGNORED
        return {"accuracy": float((best == wanted)[counted].float().mean())}


@dataclass(frozen=True)
class Tagging(Task):
    """A tag for each word."""

    form: object = TEXT
    read_label = staticmethod(tags_of)
    metrics = ("accuracy",)

    def layer(self, names):
        return TaskLayer(labels=tuple(names), auto="AutoModelForTokenClassification", per_row=True)

    def encoder(self, names, preprocessor):
        return TagEncoder(names, preprocessor)

    def loss(self, outputs, targets, weights):
        counted = targets != IGNORED
        total = nn.functional.cross_entropy(outputs.values[counted].float(), targets[counted], reduction="sum")
        return total, counted.sum()

    def scores(self):
        return RowScores()

    def columns(self, names):
        return {"tags": "texts"}

    def answers(self, outputs, examples, names, preprocessor):
        return [{"tags": [names[best] for best in own.argmax(dim=1).tolist()]} for own in outputs.each()]


TAGGING = TaskKind(("text",), TaggingSettings, lambda settings, form: Tagging(form))


# A task with two samples an example


class QuestionForm:
    """A question and its answer: two texts, each a sample of its own."""

    modality = "text"

    def reader(self, sources, files):
        return find_reader(sources, files)

    def resolve(self, named, schema, corpus, *, labelled):
        return Columns(others={"question": "question", "answer": "answer"})

    def samples(self, record, columns, identity):
        texts = [text_of(record.values, columns.others[name]) for name in ("question", "answer")]
        return tuple(Sample(f"{identity}.{number}", {"text": text}) for number, text in enumerate(texts))

    def name(self, record, columns):
        return None


@dataclass(frozen=True)
class Together:
    """Batches of whole pairs: [q0, a0, q1, a1, ...]."""

    pairs: Shuffled

    @property
    def batch_size(self):
        return 2 * self.pairs.batch_size

    @property
    def seed(self):
        return self.pairs.seed

    def batches(self, lengths, epoch):
        drawn = self.pairs.batches(lengths[0::2], epoch)
        return [np.stack([2 * members, 2 * members + 1], axis=1).reshape(-1) for members in drawn]

    def among(self, members):
        raise NotImplementedError("pairs are not read in windows")


class PairEncoder:
    """The number of its example is each sample's target."""

    def __init__(self):
        self.examples = 0

    def add(self, example, label):
        self.examples += 1

    def finish(self):
        return Encoded(Targets(np.repeat(np.arange(self.examples), 2)), [])


@dataclass(frozen=True)
class Matching(Task):
    """Questions and answers whose vectors lie near each other: in-batch negatives, both ways."""

    form: object = field(default_factory=QuestionForm)
    metrics = ("precision_at_1",)
    closed = False
    needs_labels = False

    def layer(self, names):
        from recycle_cli.settings import EmbeddingSettings

        return TaskLayer("embedding", head=EmbeddingSettings("linear", 8))

    def encoder(self, names, preprocessor):
        return PairEncoder()

    def sampler(self, targets, training, least=1):
        return Together(Shuffled(training.batch_size, training.shuffle_seed))

    def loss(self, outputs, targets, weights):
        vectors = nn.functional.normalize(outputs.values.float(), dim=1)
        similarity = 20 * (1 + vectors[0::2] @ vectors[1::2].T) / 2
        wanted = torch.arange(len(similarity))
        both = [nn.functional.cross_entropy(one, wanted, reduction="sum") for one in (similarity, similarity.T)]
        return sum(both) / 2, torch.tensor(len(similarity))

    def scores(self):
        return DenseScores(self.figures)

    def figures(self, vectors, examples):
        vectors = nn.functional.normalize(vectors, dim=1)
        nearest = (vectors[0::2] @ vectors[1::2].T).argmax(dim=1)
        return {"precision_at_1": float((nearest == torch.arange(len(nearest))).float().mean())}

    def columns(self, names):
        return {"similarity": "number"}

    def answers(self, outputs, examples, names, preprocessor):
        assert len(outputs) == 2 * len(examples)
        vectors = nn.functional.normalize(outputs.values, dim=1)
        return [{"similarity": float(cosine)} for cosine in (vectors[0::2] * vectors[1::2]).sum(dim=1)]


@dataclass(frozen=True)
class MatchingSettings(TaskSettings):
    """No options."""


MATCHING = TaskKind(("text",), MatchingSettings, lambda settings, form: Matching())


# A task over the windows of a text


@dataclass(frozen=True)
class ChaptersSettings(WindowedSettings):
    """No options but those of windows."""


@dataclass(frozen=True)
class Chapters(Classification):
    """A class for a text of any length: each window learns it, and together they vote."""

    windows: WindowSettings = WindowSettings()  # noqa: RUF009 - frozen

    def expand(self, preprocessor):
        return in_windows(preprocessor, self.windows)

    def samples_as(self, name):
        return SampleSettings(name, self.windows)

    def columns(self, names):
        return {"label": "text", "windows": "number"}

    def answers(self, outputs, examples, names, preprocessor):
        assert all(len(example.samples) == len(example.starts) for example in examples)
        votes = torch.split(outputs.values, [len(example.samples) for example in examples])
        return [{"label": names[int(own.mean(dim=0).argmax())], "windows": len(own)} for own in votes]

    def identity(self):
        return {**super().identity(), "stride": self.windows.stride}


CHAPTERS = TaskKind(
    ("text",),
    ChaptersSettings,
    lambda settings, form: Chapters(form=form, windows=settings.windows),
    lambda about: ChaptersSettings(WindowSettings(about["settings"]["stride"])),
)


# A third modality: rows of a table of numbers

NUMBERS = ("a", "b", "c", "d")
WIDTH = 16


class TableForm:
    """Four numbers a record."""

    modality = "table"

    def reader(self, sources, files):
        return find_reader(sources, files)

    def resolve(self, named, schema, corpus, *, labelled):
        resolved, _ = resolve_common(named, schema, corpus, labelled=labelled)
        return Columns(label=resolved.label, others={name: name for name in NUMBERS})

    def samples(self, record, columns, identity):
        return (table(identity, [[float(record.values[name]) for name in NUMBERS]]),)

    def name(self, record, columns):
        return None


def table(identity, rows):
    """A sample of so many rows of numbers."""
    return Sample(identity, {"numbers": np.array(rows, dtype="<f4").tobytes()})


class Numbers:
    """The preprocessor: four numbers are one row."""

    modality, row_cost = "table", 1
    digest = canonical_digest({"numbers": len(NUMBERS)})

    def prepare(self, samples):
        tables = [np.frombuffer(sample.fields["numbers"], dtype="<f4") for sample in samples]
        return [{"numbers": own.reshape(-1, len(NUMBERS))} for own in tables]

    def collate(self, prepared):
        tables = [torch.tensor(one["numbers"]) for one in prepared]
        lengths = torch.tensor(self.lengths(prepared))
        numbers = nn.utils.rnn.pad_sequence(tables, batch_first=True)
        return {"numbers": numbers, "attention_mask": inside(numbers, lengths).long()}

    def lengths(self, prepared):
        return np.array([len(one["numbers"]) for one in prepared], dtype=np.int64)


def inside(rows, lengths):
    """Which rows (B, L) of padded ones are a table's own."""
    return torch.arange(rows.shape[1]) < lengths[:, None]


class TableNetwork(nn.Module):
    """Three layers for each row, and a classifier of a table by the mean of its rows."""

    def __init__(self, classes):
        super().__init__()
        widths = (len(NUMBERS), WIDTH, WIDTH)
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(width, WIDTH), nn.Tanh()) for width in widths])
        self.classifier = nn.Linear(WIDTH, classes)

    def through(self, rows, first, last):
        for layer in self.layers[first:last]:
            rows = layer(rows)
        return rows

    def scores(self, rows, lengths):
        return self.classifier((rows * inside(rows, lengths)[..., None]).sum(dim=1) / lengths[:, None])

    def forward(self, numbers, attention_mask):
        return self.scores(self.through(numbers, 0, 3), attention_mask.sum(dim=1))


def split(loaded, cuts, dtype):
    """The toy cut after so many layers."""
    model = loaded.model
    names = tuple(sorted(cuts))

    def trunk(batch):
        with evaluating(model), torch.inference_mode():
            return {cut: model.through(batch["numbers"], 0, int(cut)) for cut in names if cut != "0"}

    def head_from(cut):
        return lambda rows, lengths: model.scores(model.through(rows.clone(), int(cut), 3), lengths)

    def owned(cut, *, trunk):
        before = tuple(f"layers.{number}." for number in range(int(cut)))
        return [(name, one) for name, one in model.named_parameters() if name.startswith(before) is trunk]

    return SplitModel(
        recipe=Recipe(
            modality="table",
            architecture={"toy": 3},
            cuts={cut: weights_digest(owned(cut, trunk=True)) for cut in names if cut != "0"},
            preprocessor=Numbers.digest,
            dtype=dtype,
        ),
        cuts=names,
        blocks=3,
        row_shape=(WIDTH,),
        model=model,
        preprocessor=Numbers(),
        trunk=trunk,
        head=head_from(names[-1]),
        head_from=head_from,
        full=lambda batch: model(batch["numbers"], batch["attention_mask"]),
        head_parameters=lambda cut: owned(cut, trunk=False),
        trunk_parameters=lambda cut: owned(cut, trunk=True),
        freeze=lambda cut: freeze(model, [one for _, one in owned(cut, trunk=True)], model.layers[: int(cut)]),
    )


@dataclass(frozen=True)
class LoadedTable:
    """The toy with its classes."""

    name: str
    model: nn.Module
    labels: tuple
    missing: frozenset = frozenset({"classifier.weight", "classifier.bias"})
    library = "toys"
    loads_with = "TableNetwork"

    def save(self, folder, max_length):
        (folder / "table.json").write_text(json.dumps(list(self.labels)))
        save_file(
            {name: one.detach().clone() for name, one in self.model.state_dict().items()}, folder / "t.safetensors"
        )


def open_table(source, model, layer, seed):
    """The pretrained toy, which is random from seed 0, or a RUN of it."""
    folder = Path(source.name)
    kept = folder / "table.json"
    labels = layer.labels or (json.loads(kept.read_text()) if kept.is_file() else ["0", "1"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        toy = TableNetwork(len(labels))
    if folder.is_dir():
        toy.load_state_dict(load_file(folder / "t.safetensors"))
    loaded = LoadedTable(source.name, toy, tuple(labels))
    return Network(
        loaded,
        split=lambda cuts, dtype: split(loaded, cuts, dtype),
        resolve=lambda cut, halves: cut,
    )


def layers_of_table(source, model, dtype):
    """The three cuts, a table of one row."""
    size = bytes_per_sample((WIDTH,), 1, dtype)
    return [Layer(str(cut), cut / 3, cut / 3, cut / 4, (WIDTH,), size) for cut in (1, 2, 3)], None


TABLE = Modality(
    "table",
    "tables",
    recognises=lambda name, revision: name == "toy-table" or Path(name, "table.json").is_file(),
    open=open_table,
    layers=layers_of_table,
)
TABLE_CLASSES = TaskKind(
    ("table",),
    ClassificationSettings,
    lambda settings, form: Classification(settings, form),
    lambda about: ClassificationSettings(),
)
