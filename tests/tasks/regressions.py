"""Small corpora whose records have numbers that follow from their words."""

import random
from pathlib import Path
from typing import Any

from tests.conftest import WORDS
from tests.records import write_csv

GOOD, BAD = ("good", "fast", "green"), ("bad", "slow", "red")


def mood(text: str) -> float:
    """How many words of a text are good, less the bad ones, as halves."""
    words = text.split()
    return sum((word in GOOD) - (word in BAD) for word in words) / 2


def numbered_texts(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts with a mood and with their length, as numbers; all different."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        words = draw.choices(WORDS, k=draw.randint(1, 8)) + draw.choices(GOOD + BAD, k=2)
        found[" ".join(draw.sample(words, len(words)))] = None
    return [{"text": text, "label": mood(text), "length": len(text.split()) / 10} for text in found]


def write_pairs(path: Path, count: int, seed: int = 0) -> Path:
    """Pairs of texts, and by how much the first one's mood is the better."""
    first, second = numbered_texts(count, seed), numbered_texts(count, seed + 100)
    rows = [
        {"sentence1": one["text"], "sentence2": other["text"], "label": str(one["label"] - other["label"])}
        for one, other in zip(first, second, strict=True)
    ]
    return write_csv(path, rows)
