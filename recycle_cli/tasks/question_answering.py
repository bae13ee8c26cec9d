"""Extractive question answering: the answer to a question is a place in its context."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.corpus import QUESTION, Example, Expand, Form, placed, read_answers
from recycle_cli.corpus.records import BadLabel, BadRecord
from recycle_cli.errors import DataError
from recycle_cli.models import OpenPreprocessor, TaskLayer
from recycle_cli.models.outputs import Outputs
from recycle_cli.settings import QuestionAnsweringSettings, SampleSettings
from recycle_cli.tasks.answer_encoding import AnswerEncoder, AnswerTargets
from recycle_cli.tasks.answer_spans import Chosen, best_span, best_window
from recycle_cli.tasks.contract import PredictionColumns, Task
from recycle_cli.tasks.scores import RowOutputs
from recycle_cli.tasks.squad_metrics import exact_match, f1
from recycle_cli.tasks.targets import Targets
from recycle_cli.tasks.windows import in_windows, spans_of


@dataclass(frozen=True)
class QuestionAnswering(Task):
    """Find the first and the last row of the answer in each window of a context. Targets (n, 2): rows of the window."""

    settings: QuestionAnsweringSettings = QuestionAnsweringSettings()  # noqa: RUF009 - frozen
    form: Form = QUESTION

    read_label = staticmethod(read_answers)
    metrics = ("f1", "exact_match")
    closed = False
    keyed_by_id = "answer"

    def layer(self, names: Sequence[str]) -> TaskLayer:
        """Two scores for each row, of the first and of the last."""
        return TaskLayer(labels=("start", "end"), auto="AutoModelForQuestionAnswering", per_row=True)

    def encoder(self, names: Sequence[str] | None, preprocessor: OpenPreprocessor) -> AnswerEncoder:
        """An encoder of answers."""
        return AnswerEncoder(preprocessor)

    def expand(self, preprocessor: OpenPreprocessor) -> Expand:
        """The windows of the context; the answers get their places in it."""
        cut = in_windows(preprocessor, self.settings.windows)

        def expand(example: Example) -> Example:
            return cut(_placed(example))

        return expand

    def samples_as(self, name: str) -> SampleSettings:
        """Windows of contexts."""
        return SampleSettings(name, self.settings.windows)

    def loss(
        self, outputs: Outputs, targets: torch.Tensor, weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy over the rows of a window, the mean of that of the first and of the last: (B, L, 2), (B, 2)."""
        assert outputs.lengths is not None
        rows = torch.arange(outputs.values.shape[1], device=outputs.values.device)
        beyond = rows >= outputs.lengths.to(rows.device)[:, None]
        logits = outputs.values.float().masked_fill(beyond[..., None], -torch.inf)
        total = F.cross_entropy(logits, targets, reduction="sum") / 2
        return total, total.new_tensor(len(targets))

    def scores(self) -> "AnswerScores":
        """Keeps the logits."""
        return AnswerScores(self)

    def columns(self, names: Sequence[str]) -> PredictionColumns:
        """The answer, its probability, its place in the context, and with `no_answer` the probability of none."""
        none: PredictionColumns = {"no_answer_score": "number"} if self.settings.no_answer else {}
        return {"answer": "text", "score": "number", "start": "integer", "end": "integer", **none}

    def answers(
        self, outputs: Outputs, examples: Sequence[Example], names: Sequence[str], preprocessor: OpenPreprocessor
    ) -> list[dict[str, Any]]:
        """The best answer over the windows of each question; empty, and from 0 to 0, if there is none."""
        logits = iter(outputs.each())
        found = []
        for example, spans in zip(examples, spans_of(examples, preprocessor), strict=True):
            most = self.settings.max_answer_tokens
            windows = [best_span(next(logits).float().numpy(), own, most) for own in spans]
            found.append(self._answer(example, best_window(windows)))
        return found

    def _answer(self, example: Example, chosen: Chosen) -> dict[str, Any]:
        text, start = str(example.samples[chosen.window].fields["text_pair"]), example.starts[chosen.window]
        none = {"no_answer_score": chosen.none} if self.settings.no_answer else {}
        if self.has_none(chosen):
            return {"answer": "", "score": chosen.none, "start": 0, "end": 0, **none}
        first, last = chosen.found.first, chosen.found.last
        place = {"start": start + first, "end": start + last}
        return {"answer": text[first:last], "score": chosen.found.score, **place, **none}

    def has_none(self, chosen: Chosen) -> bool:
        """Whether no answer is predicted for a question."""
        return self.settings.no_answer and chosen.none - chosen.found.score > self.settings.no_answer_threshold

    def check_data(self, targets: Targets, names: Sequence[str], where: str = "") -> None:
        """Refuse questions without an answer unless --no-answer learns them."""
        windows = cast(AnswerTargets, targets).windows
        if not self.settings.no_answer and not all(window.answers for window in windows):
            raise DataError(
                f"{where}some questions have no answer ([], or is_impossible); add --no-answer to learn that, or leave "
                "them out"
            )

    def identity(self) -> dict[str, Any]:
        """The options that decide windows and answers."""
        asked = self.settings
        return {
            "stride": asked.windows.stride,
            "no_answer": asked.no_answer,
            "no_answer_threshold": asked.no_answer_threshold,
            "max_answer_tokens": asked.max_answer_tokens,
        }

    def described(self, names: Sequence[str]) -> str:
        """The two scores."""
        return "Its outputs are the scores of each token as the first and as the last of the answer"


class AnswerScores(RowOutputs):
    """Scores answers by exact match and F1, by the logits of all windows."""

    def __init__(self, task: QuestionAnswering) -> None:
        super().__init__()
        self._task = task

    def figures(self, targets: Targets) -> dict[str, float]:
        """The means over the questions, 0 to 1."""
        asked = cast(AnswerTargets, targets)
        assert asked.questions is not None
        most = self._task.settings.max_answer_tokens
        both = zip(self.each, asked.windows, strict=True)
        best = [best_span(logits.numpy(), window.spans, most) for logits, window in both]
        found = []
        for _, places in groupby(range(len(best)), key=asked.questions.tolist().__getitem__):
            own = list(places)
            chosen = best_window([best[place] for place in own])
            window = asked.windows[own[chosen.window]]
            text = "" if self._task.has_none(chosen) else window.text[chosen.found.first : chosen.found.last]
            found.append((f1(text, window.answers), exact_match(text, window.answers)))
        scores = np.array(found, dtype=np.float64).mean(axis=0)
        return {"f1": float(scores[0]), "exact_match": float(scores[1])}


def _placed(example: Example) -> Example:
    """The example whose answers have their places in the context. Raises BadLabel."""
    context = str(example.sample.fields["text_pair"])
    try:
        label = None if example.label is None else placed(example.label, context)
        labels = {column: placed(one, context) for column, one in example.labels.items()}
    except BadRecord as problem:
        raise BadLabel(str(problem)) from None
    return replace(example, label=label, labels=labels)
