"""Token classification: a tag for each word, and the entities that tags make."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.batches import Indices
from recycle_cli.corpus import WORDS_WITH_TAGS, Example, Expand, Form, ReadLabel, ReadTags
from recycle_cli.models import OpenPreprocessor, TaskLayer
from recycle_cli.models.outputs import Outputs
from recycle_cli.settings import SampleSettings, TokenSettings
from recycle_cli.tasks.alignment import NOWHERE, Aligned, Words, aligned
from recycle_cli.tasks.contract import LOSS, PredictionColumns, Task
from recycle_cli.tasks.entities import OUTSIDE, entities_in, entity_figures
from recycle_cli.tasks.scores import RowOutputs
from recycle_cli.tasks.tag_encoding import TagEncoder, TagTargets
from recycle_cli.tasks.targets import IGNORED, Targets
from recycle_cli.tasks.windows import in_windows

AUTO = "AutoModelForTokenClassification"


@dataclass(frozen=True)
class TokenClassification(Task):
    """A tag for each word, by a softmax over all tags at the row of its first piece; targets are of rows."""

    settings: TokenSettings = TokenSettings()  # noqa: RUF009 - frozen
    form: Form = WORDS_WITH_TAGS

    metrics = ("f1", "precision", "recall", "accuracy", LOSS)

    @property
    def read_label(self) -> ReadLabel:  # type: ignore[override]
        """The tags of a record's words."""
        return ReadTags(self.settings.tag_names)

    def layer(self, names: Sequence[str]) -> TaskLayer:
        """A score for each tag at each row."""
        return TaskLayer(labels=tuple(names), auto=AUTO, per_row=True)

    def encoder(self, names: Sequence[str] | None, preprocessor: OpenPreprocessor) -> TagEncoder:
        """An encoder of tags of words."""
        return TagEncoder(names, preprocessor, every_piece=self.settings.label_all_pieces)

    def expand(self, preprocessor: OpenPreprocessor) -> Expand:
        """A text that is longer than the model takes gives windows."""
        return in_windows(preprocessor, self.settings.windows)

    def samples_as(self, name: str) -> SampleSettings:
        """Windows, and files of words."""
        return SampleSettings(name, self.settings.windows)

    def loss(
        self, outputs: Outputs, targets: torch.Tensor, weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy: logits (B, L, C), targets (B, up to L); each row that has a tag counts one."""
        logits = outputs.values[:, : targets.shape[1]].float()
        total = F.cross_entropy(
            logits.flatten(0, 1),
            targets.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.settings.smoothing,
        )
        return total, (targets != IGNORED).sum()

    def scores(self) -> "TagScores":
        """Keeps the logits of all rows."""
        return TagScores()

    def columns(self, names: Sequence[str]) -> PredictionColumns:
        """The tags of the words, and the entities that they make."""
        return {"tags": "texts", "entities": "spans"}

    def answers(
        self, outputs: Outputs, examples: Sequence[Example], names: Sequence[str], preprocessor: OpenPreprocessor
    ) -> list[dict[str, Any]]:
        """The tag at each word's first piece, O for a word without one; entities with their places in the text, whose
        score is the mean over their words."""
        each = iter(outputs.each())
        return [
            _answer(words, [(own, next(each)) for own in samples], names)
            for words, samples in aligned(examples, preprocessor)
        ]

    def identity(self) -> dict[str, Any]:
        """The options by their names on the command line."""
        own = self.settings
        return {
            "label_all_pieces": own.label_all_pieces,
            "tag_names": list(own.tag_names),
            "stride": own.windows.stride,
            "label_smoothing": own.smoothing,
        }

    def described(self, names: Sequence[str]) -> str:
        """The tags."""
        return f"Tags of words: {', '.join(names)}"


def _answer(words: Words, samples: Sequence[tuple[Aligned, torch.Tensor]], names: Sequence[str]) -> dict[str, Any]:
    tags, scores = [OUTSIDE] * len(words.first), [0.0] * len(words.first)
    for own, logits in samples:
        best, at = torch.softmax(logits.float(), dim=1).max(dim=1)
        found, named = best.tolist(), at.tolist()
        for word, row in zip(own.words.tolist(), own.heads.tolist(), strict=True):
            if row != NOWHERE:
                tags[word], scores[word] = names[named[row]], found[row]
    return {"tags": tags, "entities": _entities(words, tags, scores)}


def _entities(words: Words, tags: Sequence[str], scores: Sequence[float]) -> list[dict[str, Any]]:
    found = []
    for kind, first, last in entities_in(tags):
        start, end = int(words.first[first]), int(words.end[last])
        score = sum(scores[first : last + 1]) / (last + 1 - first)
        found.append({"label": kind, "start": start, "end": end, "score": score, "text": words.text[start:end]})
    return found


class TagScores(RowOutputs):
    """Scores words and entities by the logits of all rows; an entity may go over several windows."""

    def figures(self, targets: Targets) -> dict[str, float]:
        """Precision, recall and F1 of entities, the share of words with the right tag, and the mean loss of rows."""
        assert isinstance(targets, TagTargets)
        logits = torch.cat(self.each)
        wanted = torch.from_numpy(targets.values)
        counted = wanted != IGNORED
        found = _tags_found(logits.argmax(dim=1).numpy(), targets)
        true = [targets.names[code] for code in targets.words.tolist()]
        right = sum(own == expected for own, expected in zip(found, true, strict=True))
        bounds = [*targets.places[:-1][targets.begins].tolist(), len(true)]
        return {
            **entity_figures((found[first:end], true[first:end]) for first, end in pairwise(bounds)),
            "accuracy": right / max(1, len(true)),
            LOSS: float(F.cross_entropy(logits[counted].float(), wanted[counted])) if counted.any() else 0.0,
        }


def _tags_found(best: Indices, targets: TagTargets) -> list[str]:
    """The tag at the first piece of each word, O for a word without one."""
    assert targets.offsets is not None
    base = np.repeat(targets.offsets[:-1], np.diff(targets.places))
    known = targets.heads != NOWHERE
    rows = np.where(known, base + targets.heads, 0)
    return [
        targets.names[code] if has else OUTSIDE for code, has in zip(best[rows].tolist(), known.tolist(), strict=True)
    ]
