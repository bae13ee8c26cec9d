"""Exact match and F1 of answers, by the definition of SQuAD 2.0's evaluation, which for 1.1 is that of 1.1's."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Lower case without ASCII punctuation, articles and superfluous white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(found: str, answers: Sequence[str]) -> float:
    """1 if the answer is one of `answers` once both are normalised, else 0."""
    return float(normalized(found) in {normalized(answer) for answer in _counted(answers)})


def f1(found: str, answers: Sequence[str]) -> float:
    """The largest F1 of the words in common with one of `answers`, from 0 to 1. Nothing against nothing is 1."""
    return max(_f1(normalized(found).split(), normalized(answer).split()) for answer in _counted(answers))


def _counted(answers: Sequence[str]) -> Sequence[str]:
    """The answers of which something is left once they are normalised; the empty one for a question without any."""
    return [answer for answer in answers if normalized(answer)] or [""]


def _f1(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    common = (Counter(found) & Counter(wanted)).total()
    return 2 * common / (len(found) + len(wanted))
