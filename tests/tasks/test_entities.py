"""Entities and their scores are those of seqeval, on odd tags too."""

import importlib.util
import random
import warnings

import pytest

from recycle_cli.tasks.entities import Entity, entities_in, entity_figures

SCHEMES = {
    "BIO": ["O", "B-A", "I-A", "B-B-C", "I-B-C"],
    "IO": ["O", "I-A", "I-B"],
    "BIOES": [f"{prefix}-{kind}" for prefix in "BIES" for kind in "AB"] + ["O"],
    "bare": ["O", "B", "I", "E", "S", "B-", "I-A"],
}


def some(tags, draw):
    return [draw.choice(tags) for _ in range(draw.randint(1, 8))]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_they_are_those_of_seqeval(scheme):
    if importlib.util.find_spec("seqeval") is None:
        pytest.skip("needs the package seqeval")
    from seqeval.metrics import f1_score, precision_score, recall_score
    from seqeval.metrics.sequence_labeling import get_entities

    draw = random.Random(scheme)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2000):
            tags = some(SCHEMES[scheme], draw)
            assert [tuple(one) for one in entities_in(tags)] == get_entities(tags), tags
        for _ in range(50):
            true = [some(SCHEMES[scheme], draw) for _ in range(4)]
            found = [[draw.choice([tag, *SCHEMES[scheme]]) for tag in tags] for tags in true]
            expected = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
            figures = entity_figures(zip(found, true, strict=True))
            assert figures == pytest.approx({name: score(true, found) for name, score in expected.items()})


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O I-A I-A O", [("A", 1, 2)]),
        ("B-A B-A I-A", [("A", 0, 0), ("A", 1, 2)]),
        ("I-A I-B", [("A", 0, 0), ("B", 1, 1)]),
        ("B-A I-B", [("A", 0, 0), ("B", 1, 1)]),
        ("B-A E-A I-A", [("A", 0, 1), ("A", 2, 2)]),
        ("S-A E-A", [("A", 0, 0), ("A", 1, 1)]),
        ("B-A I-A E-A S-A", [("A", 0, 2), ("A", 3, 3)]),
        ("ORG ORG O PER", [("ORG", 0, 1), ("PER", 3, 3)]),
        ("B-A-B I-A-B", [("A-B", 0, 1)]),
        ("O O", []),
    ],
)
def test_by_hand(tags, expected):
    assert entities_in(tags.split()) == [Entity(*one) for one in expected]


def test_nothing_to_divide_by_is_zero():
    assert entity_figures([(["O"], ["O"])]) == {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    assert entity_figures([(["B-A", "O"], ["B-A", "I-A"]), (["B-B"], ["B-B"])]) == {
        "f1": 0.5,
        "precision": 0.5,
        "recall": 0.5,
    }
