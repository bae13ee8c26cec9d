"""Words and rows: which piece is whose, in which window, and what becomes of words without a piece."""

import numpy as np
import pytest
import torch

from recycle_cli.corpus import Example
from recycle_cli.errors import DataError
from recycle_cli.keys import Sample
from recycle_cli.models.outputs import Outputs
from recycle_cli.settings import TokenSettings, WindowSettings
from recycle_cli.tasks import IGNORED, TokenClassification, UnknownLabel
from recycle_cli.tasks.alignment import NOWHERE, aligned
from recycle_cli.tasks.tag_encoding import TagEncoder


class Pieces:
    """A preprocessor whose pieces are of at most `size` characters; `*` has none. [CLS] and [SEP] are at the ends."""

    def __init__(self, size=3):
        self.size = size

    def spans(self, samples):
        return [self._spans(str(sample.fields["text"])) for sample in samples]

    def _spans(self, text):
        found, at = [(-1, 0, 0)], 0
        for word in text.split(" "):
            ends = [] if word == "*" else range(0, len(word), self.size)
            found += [(0, at + start, at + min(start + self.size, len(word))) for start in ends]
            at += len(word) + 1
        return np.array([*found, (-1, 0, 0)], dtype=np.int64)


def example(text, *starts_and_parts, label=None):
    sample = Sample("7", {"text": text})
    if not starts_and_parts:
        return Example("7", (sample,), label)
    samples = tuple(Sample("7", {"text": part}) for _, part in starts_and_parts)
    return Example("7", samples, label, starts=tuple(start for start, _ in starts_and_parts), whole=sample)


def encoded(*examples, names=None, every_piece=False):
    encoder = TagEncoder(names, Pieces, every_piece=every_piece)
    for one in examples:
        encoder.add(one, one.label)
    return encoder.finish()


def test_the_first_piece_of_a_word_has_its_tag():
    found = encoded(example("abcdef x", label=("B-A", "O")))
    assert found.names == ["O", "B-A"]
    assert found.targets.values.tolist() == [IGNORED, 1, IGNORED, 0, IGNORED]
    assert found.targets.heads.tolist() == [1, 3]


def test_all_pieces_have_it_if_asked_inside_of_the_entity():
    found = encoded(example("abcdef abcd abcd", label=("B-A", "I-A", "S-B")), every_piece=True)
    named = [None if code == IGNORED else found.names[code] for code in found.targets.values.tolist()]
    assert named == [None, "B-A", "I-A", "I-A", "I-A", "S-B", "S-B", None]


def test_a_word_without_a_piece_keeps_its_tag_and_is_predicted_outside():
    one = example("ab * cd", label=("B-A", "I-A", "B-A"))
    found = encoded(one, names=["O", "B-A", "I-A"])
    assert found.targets.heads.tolist() == [1, NOWHERE, 2]
    assert len(found.targets.words) == 3
    task = TokenClassification()
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 0]] * 9
    outputs = Outputs.of([torch.from_numpy(logits)])
    (answer,) = task.answers(outputs, [one], found.names, Pieces)
    assert answer["tags"] == ["B-A", "O", "B-A"]
    assert [(span["start"], span["end"], span["text"]) for span in answer["entities"]] == [(0, 2, "ab"), (5, 7, "cd")]
    scores = task.scores()
    scores.add(np.array([0]), outputs)
    figures = scores.figures(found.targets)
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert (figures["precision"], figures["recall"]) == (0.5, 0.5)


def test_a_piece_over_two_words_is_the_first_ones_and_predicts_both():
    class Joined(Pieces):
        def _spans(self, text):
            return np.array([(0, 0, 4), (0, 5, 7)], dtype=np.int64)

    ((_, (own,)),) = aligned([example("a bc de")], Joined)
    assert own.heads.tolist() == [0, 0, 1]
    encoder = TagEncoder(None, Joined, every_piece=False)
    encoder.add(example("a bc de"), ("X", "Y", "O"))
    found = encoder.finish()
    assert [found.names[code] for code in found.targets.values.tolist()] == ["X", "O"]


def test_a_word_of_several_windows_is_that_ones_in_which_it_lies_deepest():
    text = "aa bb cc dd ee ff gg"
    one = example(text, (0, "aa bb cc dd ee"), (6, "cc dd ee ff gg"), label=tuple("abcdefg"))
    ((_, samples),) = aligned([one], Pieces)
    assert [own.words.tolist() for own in samples] == [[0, 1, 2, 3], [4, 5, 6]]
    found = encoded(one)
    rows = found.targets.values
    assert (rows != IGNORED).sum() == 7, "each word is learnt once"
    assert found.targets.begins.tolist() == [True, False]


def test_a_word_that_is_longer_than_a_window_is_one_word():
    text = "ab " + 9 * "x" + " cd"
    one = example(text, (0, "ab xxxxx"), (6, "xxxxxx"), (11, "x cd"), label=("O", "B-A", "O"))
    ((words, samples),) = aligned([one], Pieces)
    assert [own.words.tolist() for own in samples] == [[0, 1], [], [2]]
    assert samples[0].heads.tolist() == [1, 2]
    assert len(words.first) == 3


def test_entities_go_over_windows_and_are_counted_once():
    one = example("aa bb cc dd", (0, "aa bb cc"), (3, "bb cc dd"), label=("O", "B-A", "I-A", "I-A"))
    found = encoded(one)
    names = found.names
    scores = TokenClassification().scores()

    def logits(*tags):
        return 9 * torch.eye(len(names))[[names.index(tag) for tag in ("O", *tags, "O")]]

    outputs = [logits("O", "B-A", "O"), logits("O", "I-A", "I-A")]
    scores.add(np.array([1]), Outputs.of(outputs[1:]))
    scores.add(np.array([0]), Outputs.of(outputs[:1]))
    assert scores.figures(found.targets)["f1"] == 1.0
    (answer,) = TokenClassification().answers(Outputs.of(outputs), [one], names, Pieces)
    assert answer["tags"] == ["O", "B-A", "I-A", "I-A"]
    assert [(span["start"], span["end"]) for span in answer["entities"]] == [(3, 11)]


def test_taking_some_samples_keeps_rows_and_words_together():
    targets = encoded(
        example("a b", label=("X", "O")), example("c", label=("O",)), example("d e", label=("O", "Y"))
    ).targets
    taken = targets.take(np.array([2, 0]))
    assert [targets.names[code] for code in taken.words.tolist()] == ["O", "Y", "X", "O"]
    assert taken.places.tolist() == [0, 2, 4]
    assert taken.tensor().shape == (2, 4)
    assert taken.tobytes() != targets.tobytes()


def test_a_tag_that_training_has_not_seen_is_told_with_its_word():
    one = example("a b", label=("O", "B-NEW"))
    with pytest.raises(
        UnknownLabel, match=r"record 7: the tag 'B-NEW' of word 2 was not seen in training \(tags: O, B-A\)"
    ):
        encoded(one, names=["O", "B-A"])
    with pytest.raises(DataError, match="only the label 'O', expected at least two tags"):
        encoded(example("a", label=("O",)))


def test_options_are_the_runs():
    settings = TokenSettings(WindowSettings(5), ("O", "B-A"), True)
    task = TokenClassification(settings)
    assert task.identity() == {
        "label_all_pieces": True,
        "tag_names": ["O", "B-A"],
        "stride": 5,
        "label_smoothing": 0.0,
    }
    assert task.samples_as("token-classification").windows.stride == 5
