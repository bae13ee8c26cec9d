"""docs/models.md: the outcome of every type, written by `python -m tests.models.all_types` and read by the tests."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from tests.models.all_types.check import EXACT, SHARES, Outcome

PAGE = Path(__file__).parents[3] / "docs" / "models.md"

HEAD = """# Models

Every type for which transformers {transformers} has a class for sequence classification or image classification was
tried with torch {torch} on a CPU, as a small random model of the type's own class: {counts}.
The largest difference from transformers was {error:.0e} of the largest logit, in float32.

The check saves the model as transformers does, and then compares the tool with transformers alone, each sample by
itself and without padding:

- texts from a single token to {longest}, on both sides of every whole number in the config (windows, chunks,
  landmarks, positions of the first training), and a pair of texts; {images} images;
- every cut that is offered at 25%, 50%, 75% and 100%, from the rows of a store: all samples in one batch, and each
  alone;
- a step of training from the store, against a step with the frozen trunk in place: the same loss, the same tensors
  afterwards, and the same logits;
- the model saved as a RUN: loaded with `from_pretrained` it gives the same logits.

**exact** means that all of this was equal up to rounding (1e-4 of the largest logit; after a step, where that is more,
ten times the plain model's own rounding), **refused** that the tool says in one line why it does not take the model,
**unbuildable** that transformers itself does not build the type here. The models are small, and have a tokenizer of one
letter a token: what a config of other settings switches on is not tried here. A model proves itself again whenever it
is opened.

`python -m tests.models.all_types` makes this page anew, in about ten minutes of a core;
`pytest -m long tests/models/all_types` compares.
"""

TITLES = {"text": "Texts", "image": "Images"}
ROW = re.compile(r"^\| `([^`]+)` \| (\w+) \| ([^|]*) \|", re.MULTILINE)


def written(outcomes: Sequence[Outcome], longest: int, images: int) -> str:
    """The page."""
    exact = [one for one in outcomes if one.outcome == EXACT]
    counts = []
    for modality, noun in (("text", "types of texts"), ("image", "types of images")):
        found = Counter(one.outcome for one in outcomes if one.modality == modality)
        each = ", ".join(f"{count} {outcome}" for outcome, count in found.most_common())
        counts.append(f"{each} of {found.total()} {noun}")
    parts = [
        HEAD.format(
            transformers=transformers.__version__,
            torch=torch.__version__.split("+")[0],
            counts="; ".join(counts),
            error=max((one.error for one in exact), default=0.0),
            longest=longest,
            images=images,
        )
    ]
    for modality, title in TITLES.items():
        parts.append(f"\n## {title}\n\n| type | outcome | cuts | remarks |\n|---|---|---|---|\n")
        parts += [_row(one) for one in sorted(outcomes, key=lambda one: one.kind) if one.modality == modality]
    return "".join(parts)


def outcomes_on_page() -> dict[tuple[str, str], tuple[str, tuple[str, ...]]]:
    """Outcome and cuts of each type by modality and name, as the page has them."""
    text = PAGE.read_text(encoding="utf-8")
    found = {}
    for modality, title in TITLES.items():
        (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        for kind, outcome, cuts in ROW.findall(section):
            assert (modality, kind) not in found, f"docs/models.md has {kind} twice"
            found[modality, kind] = (outcome, SHARES if cuts == "all" else tuple(cuts.split()))
    return found


def _row(one: Outcome) -> str:
    cuts = "all" if one.cuts == SHARES else " ".join(one.cuts)
    remarks = one.reason.replace("|", "\\|")
    return f"| `{one.kind}` | {one.outcome} | {cuts} | {remarks} |\n"
