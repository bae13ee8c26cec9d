"""Corpora for the tasks beyond one class a sample: groups to learn an embedding from, and several labels a record."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

from tests.conftest import WORDS
from tests.records import TOPICS

SHAPES = Path(__file__).parents[2] / "sample_data" / "shapes"


def several(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts with a label for each of the topics' words in them, perhaps none; all different."""
    draw = random.Random(seed)
    plain = [word for word in WORDS if word not in TOPICS.values()]
    found: dict[str, list[str]] = {}
    while len(found) < count:
        labels = [name for name in TOPICS if draw.random() < 0.5]
        words = [*draw.choices(plain, k=draw.randint(1, 2)), *(TOPICS[name] for name in labels)]
        draw.shuffle(words)
        found.setdefault(" ".join(words), labels)
    return [{"text": text, "labels": labels} for text, labels in found.items()]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    """The records as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def shapes(root: Path) -> Path:
    """Folders `train` (twelve images of each class) and `val` (six)."""
    for split, count in (("train", 12), ("val", 6)):
        for name in ("circle", "square", "triangle"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                shutil.copy(SHAPES / split / name / f"{number:02d}.png", root / split / name)
    return root


def image_rows(root: Path, split: str) -> list[dict[str, Any]]:
    """The images of such a folder as paths, each with its class and with whether it is round, as labels."""
    found = sorted((root / split).rglob("*.png"))
    return [
        {"image": str(path), "labels": [path.parent.name, *(["round"] if path.parent.name == "circle" else [])]}
        for path in found
    ]
