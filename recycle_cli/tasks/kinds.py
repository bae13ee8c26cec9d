"""The table of tasks: what `--task` names, and how a task is built from its options or from a RUN."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from recycle_cli.corpus import FORMS, Form
from recycle_cli.errors import StoreError, UsageError
from recycle_cli.settings import (
    ClassificationSettings,
    PairSettings,
    QuestionAnsweringSettings,
    RegressionSettings,
    SimilaritySettings,
    TaskSettings,
    TokenSettings,
    WindowSettings,
)
from recycle_cli.settings.option import changed_options
from recycle_cli.tasks.classification import Classification
from recycle_cli.tasks.contract import Task
from recycle_cli.tasks.head_layers import layers_of_run
from recycle_cli.tasks.multi_label import MultiLabel
from recycle_cli.tasks.pair_similarity import PairSimilarity
from recycle_cli.tasks.question_answering import QuestionAnswering
from recycle_cli.tasks.regression import Regression
from recycle_cli.tasks.similarity import Similarity
from recycle_cli.tasks.token_classification import TokenClassification


@dataclass(frozen=True)
class TaskKind:
    """One row of the table.

    modalities  the kinds of input that it takes
    settings    the class of its options
    build       (its options, the form of a plain record) -> the task
    reopened    the contents of a RUN's `recycle.json` -> the options that predicting with it needs; None for defaults
    """

    modalities: tuple[str, ...]
    settings: type[TaskSettings]
    build: Callable[[Any, Form], Task]
    reopened: Callable[[Mapping[str, Any]], TaskSettings | None] = lambda about: None


def _classification(settings: ClassificationSettings, form: Form) -> Task:
    return MultiLabel(settings=settings, form=form) if settings.multi_label else Classification(settings, form)


def _classes_of(about: Mapping[str, Any]) -> ClassificationSettings:
    return ClassificationSettings(multi_label=bool(about.get("multi_label")), layers=layers_of_run(about))


def _numbers_of(about: Mapping[str, Any]) -> RegressionSettings:
    return RegressionSettings(tuple(about["settings"].get("target_columns", ())), layers=layers_of_run(about))


def _tokens_of(about: Mapping[str, Any]) -> TokenSettings:
    own = about["settings"]
    return TokenSettings(WindowSettings(own["stride"]), tuple(own["tag_names"]), own["label_all_pieces"])


def _answers_of(about: Mapping[str, Any]) -> QuestionAnsweringSettings:
    kept = about["settings"]
    own = ("no_answer", "no_answer_threshold", "max_answer_tokens")
    return QuestionAnsweringSettings(WindowSettings(kept["stride"]), **{name: kept[name] for name in own})


def _pairs_of(about: Mapping[str, Any]) -> PairSettings:
    kept = about["settings"]["pairs"]
    return PairSettings(kept["loss"], kept["scale"])


KINDS: dict[str, TaskKind] = {
    "text-classification": TaskKind(("text",), ClassificationSettings, _classification, _classes_of),
    "image-classification": TaskKind(("image",), ClassificationSettings, _classification, _classes_of),
    "pair-similarity": TaskKind(("text",), PairSettings, lambda settings, form: PairSimilarity(settings), _pairs_of),
    "question-answering": TaskKind(
        ("text",), QuestionAnsweringSettings, lambda settings, form: QuestionAnswering(settings), _answers_of
    ),
    "token-classification": TaskKind(
        ("text",), TokenSettings, lambda settings, form: TokenClassification(settings), _tokens_of
    ),
    "regression": TaskKind(("text", "image"), RegressionSettings, Regression, _numbers_of),
    "similarity": TaskKind(("text", "image"), SimilaritySettings, Similarity),
}


def task_of(name: str, modality: str, settings: TaskSettings | None = None, taker: str = "the model") -> Task:
    """The task that `--task` names, over inputs of a modality.

    settings  the task's options; None for its defaults
    taker     the model or the store that has this modality, for messages

    Raises UsageError for a name that is not in the table, for inputs of another kind, and for the options of another
    task.
    """
    if name not in KINDS:
        raise UsageError(f"--task {name} is not known; take one of {', '.join(KINDS)}")
    kind = KINDS[name]
    if modality not in kind.modalities:
        fitting = [other for other, one in KINDS.items() if modality in one.modalities]
        remedy = f"use --task {fitting[0]}" if fitting else "there is no task for them"
        raise UsageError(f"--task {name}: {taker} takes {modality}s; {remedy}")
    if settings is not None and not isinstance(settings, kind.settings):
        given = ", ".join(changed_options(settings)) or type(settings).__name__
        takers = " or ".join(other for other, one in KINDS.items() if isinstance(settings, one.settings))
        raise UsageError(f"{given}: only --task {takers} takes it; leave it out of --task {name}")
    return kind.build(settings or kind.settings(), FORMS[modality])


def task_of_run(name: str, modality: str | None, about: Mapping[str, Any]) -> Task:
    """The task of a RUN. `modality`: of its inputs, None for any that the task takes. Raises StoreError for a task that
    this version does not know."""
    if name not in KINDS:
        known = ", ".join(KINDS)
        raise StoreError(f"the run's task {name!r} is not known here (known are {known}); update recycle")
    return task_of(name, modality or next(iter(KINDS[name].modalities)), KINDS[name].reopened(about))
