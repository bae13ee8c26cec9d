"""The contract of a task: all that the training loop, the data and the predictions ask of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from unicodedata import decimal

import numpy as np
import torch

from recycle_cli.batches import Indices, Sampler, Shuffled
from recycle_cli.corpus import Example, Expand, Form, ReadLabel, one_label
from recycle_cli.errors import DataError, UsageError
from recycle_cli.models import OpenPreprocessor, TaskLayer
from recycle_cli.models.outputs import Outputs
from recycle_cli.settings import SampleSettings, TrainingSettings
from recycle_cli.tasks.label_encoding import Encoder
from recycle_cli.tasks.scores import Scores
from recycle_cli.tasks.targets import Targets

Kind = Literal["text", "number", "integer", "texts", "numbers", "spans"]
"""What a column holds; a span is a place in the text: `label`, `start`, `end` (last + 1 character), `score`, `text`."""

PredictionColumns = Mapping[str, Kind]
"""The columns of a prediction beside the record's id, and what each holds."""

LOSS, RMSE = "loss", "rmse"

SMALLER_IS_BETTER = frozenset({LOSS, RMSE})
"""The metrics that are errors; of all others more is better."""


class Task:
    """What a head is trained for, built once from its own options. A subclass must define the methods that raise
    NotImplementedError here; the others are defaults. B is the number of samples in a batch, n of all.

    form        which samples a record gives
    read_label  how a record's label is read
    metrics     names of the figures; the first chooses the best weights unless the user names another
    closed      whether the classes are those of the training data, also when evaluating on other data
    mixes       whether MixUp and CutMix apply: the loss of a mixed sample is that against each of the two, weighted
    draws_by_label  whether the labels decide which samples share a batch; heads that share batches then share a column
    pools       whether a pooled head can be its last layer, since it has one output a sample
    needs_labels  whether an example without a label is left out; else every example counts as labelled
    keyed_by_id  the column of predictions that a .json file holds by id, as SQuAD's evaluation reads it; None for none
    comparable  the most labelled samples that are scored, if each is compared with all others; None for no limit
    """

    form: Form
    read_label: ReadLabel = staticmethod(one_label)
    metrics: tuple[str, ...]
    closed: bool = True
    mixes: bool = False
    pools: bool = False
    keyed_by_id: str | None = None
    comparable: int | None = None
    draws_by_label: bool = False
    needs_labels: bool = True

    def layer(self, names: Sequence[str]) -> TaskLayer:
        """The last layer of the model."""
        raise NotImplementedError

    def encoder(self, names: Sequence[str] | None, preprocessor: OpenPreprocessor) -> Encoder:
        """An encoder of labels. `names`: the known classes; None finds them (and wants enough of them to train on).
        `preprocessor` is for labels of a sample's rows."""
        raise NotImplementedError

    def expand(self, preprocessor: OpenPreprocessor) -> Expand | None:
        """A function that gives an example other samples than its form does, such as the windows of a long text; None
        if the form's are taken."""
        return None

    def samples_as(self, name: str) -> SampleSettings:
        """The settings by which a precompute takes the task's samples; `name` is the task's own. The default is for
        samples that are plain records."""
        return SampleSettings()

    def sampler(self, targets: Targets, training: TrainingSettings, least: int = 1) -> Sampler:
        """How a training draws its batches. `least`: the fewest samples that a batch may have."""
        return Shuffled(training.batch_size, training.shuffle_seed, least)

    def weights(self, targets: Targets, names: Sequence[str]) -> torch.Tensor | None:
        """Weights of the classes that `loss` is given; None for none."""
        return None

    def loss(
        self, outputs: Outputs, targets: torch.Tensor, weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a batch as (sum, weight), two scalars. Both add up over accumulated batches, and the loss of a
        step is sum / weight. A weight of 0 means that the batch has nothing to learn from."""
        raise NotImplementedError

    def scores(self) -> Scores:
        """A new collection of outputs, for the figures at the end."""
        raise NotImplementedError

    def columns(self, names: Sequence[str]) -> PredictionColumns:
        """The columns of the predictions."""
        raise NotImplementedError

    def answers(
        self, outputs: Outputs, examples: Sequence[Example], names: Sequence[str], preprocessor: OpenPreprocessor
    ) -> list[dict[str, Any]]:
        """A prediction an example: a value for each of the columns. The outputs are those of the examples' samples, in
        their order; `preprocessor` tells where a sample's rows lie in its text."""
        raise NotImplementedError

    def vectors(self, outputs: Outputs) -> torch.Tensor:
        """Embeddings (B, E) of the samples, float32 and of length one. Raises UsageError if the outputs are none."""
        raise UsageError("its outputs are no embeddings")

    def check_options(self, training: TrainingSettings) -> None:
        """Raise UsageError for options of the task that do not fit each other, or the training."""

    def check_data(self, targets: Targets, names: Sequence[str], where: str = "") -> None:
        """Raise DataError if samples with these targets cannot be learnt from or scored. `where` begins the message; it
        is empty for the data to train on, and names the option for data to evaluate on."""

    def check_batches(self, batches: Sequence[Indices], targets: Targets) -> str | None:
        """The reason why too little would be learnt from these batches; None if there is none."""
        return None

    def identity(self) -> dict[str, Any]:
        """The options that must be the same for a resumed training to go on as if it had never stopped."""
        return {}

    def at_threshold(self, threshold: float) -> "Task":
        """The task deciding at this score. Raises UsageError if it does not decide by a score."""
        raise UsageError("it does not decide on several labels; leave it out")

    def described(self, names: Sequence[str]) -> str:
        """A sentence on its outputs for a model card, without its full stop."""
        return f"Classes: {', '.join(names)}"

    def pipeline(self, name: str, library: str) -> str:
        """The pipeline tag by which a model hub lists a RUN of this task; `name` is the task's own."""
        return name


def ordered(names: Iterable[str], what: str = "classes") -> list[str]:
    """Names without repeats, numbers first and in numeric order. Raises DataError for fewer than two of `what`."""
    found = sorted(set(names), key=_order)
    if len(found) < 2:
        only = f"only the label {found[0]!r}" if found else "no labelled record"
        raise DataError(f"the data hold {only}, expected at least two {what}; check the label column")
    return found


def _order(name: str) -> tuple[bool, int, str, str]:
    """A sort key that puts numbers first, in numeric order. They are compared digit by digit, since `int` refuses
    numbers of thousands of digits."""
    if not name.isdecimal():
        return True, 0, "", name
    digits = "".join(str(decimal(digit)) for digit in name).lstrip("0")
    return False, len(digits), digits, name


def only_name(label: Any, what: str = "classes", remedy: str = "") -> tuple[str]:
    """The one name in a label. Raises DataError for a label of several of `what`."""
    if isinstance(label, tuple):
        raise DataError(f"the label {list(label)} names several {what}, expected one{remedy}")
    return (label,)


def places(found: Iterable[str], names: Sequence[str]) -> Indices:
    """The place of each name among `names`, int64 (n,)."""
    numbers = {name: place for place, name in enumerate(names)}
    return np.array([numbers[name] for name in found], dtype=np.int64)


def chosen_metric(task: Task, metric: str | None) -> str:
    """The metric that chooses the best weights. Raises UsageError for one that the task does not have."""
    if metric is not None and metric not in task.metrics:
        raise UsageError(f"--metric {metric} is not known here; take one of {', '.join(task.metrics)}")
    return metric or task.metrics[0]


def is_better(metric: str, new: Mapping[str, float], old: Mapping[str, float] | None) -> bool:
    """Whether `new` beats `old` by this metric; an error is better when smaller."""
    if old is None:
        return True
    return new[metric] < old[metric] if metric in SMALLER_IS_BETTER else new[metric] > old[metric]
