"""Small labelled corpora made of the tiny tokenizer's words: the label follows from one of them."""

import csv
import random
from pathlib import Path

from tests.conftest import WORDS

TOPICS = {"bio": "cell", "code": "data", "art": "red"}


def records(count: int, seed: int = 0, longest: int = 14) -> list[dict[str, str]]:
    """Texts of 1 to `longest` words with their labels; all different."""
    draw = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        label = draw.choice(list(TOPICS))
        words = draw.choices(WORDS, k=draw.randint(1, longest))
        words.insert(draw.randrange(len(words) + 1), TOPICS[label])
        found.setdefault(" ".join(words), label)
    return [{"text": text, "label": label} for text, label in found.items()]


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    """The records as CSV, columns in the order of the first one."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
