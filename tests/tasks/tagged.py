"""Small corpora whose words have tags that follow from the words themselves."""

import json
import random
from pathlib import Path
from typing import Any

from tests.conftest import WORDS

COLOURS = ("red", "green")


def tag_of(word: str, before: str) -> str:
    """Colours and cells are entities; one that follows another of its kind goes on with it."""
    kind = "COL" if word in COLOURS else "BIO" if word in ("cell", "gene", "protein") else None
    if kind is None:
        return "O"
    return f"I-{kind}" if before in (f"B-{kind}", f"I-{kind}") else f"B-{kind}"


def tagged(count: int, seed: int = 0, longest: int = 10) -> list[dict[str, Any]]:
    """Sentences of 1 to `longest` words with a tag for each."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        words = draw.choices([*WORDS, *COLOURS, "cell", "gene"], k=draw.randint(1, longest))
        tags: list[str] = []
        for word in words:
            tags.append(tag_of(word, tags[-1] if tags else ""))
        found.append({"tokens": words, "tags": tags})
    # Every tag is there, whatever was drawn.
    found[0] = {"tokens": ["red", "green", "cell", "gene", "the"], "tags": ["B-COL", "I-COL", "B-BIO", "I-BIO", "O"]}
    return found


def write_conll(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as a CoNLL file."""
    sentences = (
        "".join(f"{word}\t_\t{tag}\n" for word, tag in zip(row["tokens"], row["tags"], strict=True)) for row in rows
    )
    path.write_text("-DOCSTART-\n\n" + "\n".join(sentences), encoding="utf-8")
    return path


def write_tokens(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
