"""Every task answers the one contract, with the losses and figures of its definition."""

from typing import get_args

import numpy as np
import pytest
import torch

from recycle_cli.corpus import IMAGE, Example
from recycle_cli.errors import DataError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.models.outputs import Outputs
from recycle_cli.settings import TASKS as TASKS_OF_SETTINGS
from recycle_cli.settings import (
    ClassificationSettings,
    HeadLayerSettings,
    Metric,
    PairSettings,
    SimilaritySettings,
    TokenSettings,
)
from recycle_cli.tasks import (
    KINDS,
    Classification,
    MultiLabel,
    Similarity,
    Targets,
    Task,
    chosen_metric,
    is_better,
    task_of,
)
from recycle_cli.tasks.targets import IGNORED
from recycle_cli.tasks.token_classification import TokenClassification

NAMES = ["a", "b", "c"]
SINGLE = ["b", "a", "c", "b", "a", "a"]
SEVERAL = [("a", "b"), (), ("c",), ("b",), ("a", "c"), ("b", "c")]
OUTPUTS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
BALANCED = ClassificationSettings(class_weights="balanced")

TASKS = [
    pytest.param(Classification(), SINGLE, id="classification"),
    pytest.param(MultiLabel(), SEVERAL, id="multi-label"),
    pytest.param(Similarity(), SINGLE, id="similarity"),
    pytest.param(Similarity(SimilaritySettings("supervised-contrastive")), SINGLE, id="contrastive"),
]


def f1(found, wanted):
    hits, wrong, missed = (found & wanted).sum(), (found & ~wanted).sum(), (~found & wanted).sum()
    return 2 * hits / max(1, 2 * hits + wrong + missed)


def average_precision(scores, wanted):
    """Mean precision at the places of the wanted, best score first."""
    order = np.argsort(-scores)
    places = np.flatnonzero(wanted[order])
    return np.mean([(rank + 1) / (place + 1) for rank, place in enumerate(places)])


@pytest.mark.parametrize(("task", "labels"), TASKS)
def test_the_contract_is_answered_from_labels_to_predictions(task, labels):
    names = task.names_of(name for label in labels for name in task.classes_in(label))
    assert names == NAMES
    examples = [Example(str(at), (Sample(str(at), {"text": "x"}),), label) for at, label in enumerate(labels)]
    encoder = task.encoder(None, lambda: None)
    for example in examples:
        encoder.add(example, example.label)
    encoded = encoder.finish()
    targets = encoded.targets.values
    assert targets.tolist() == task.targets(labels, names).tolist()
    assert (len(encoded.targets), encoded.names, encoded.known) == (6, NAMES, None)
    outputs = OUTPUTS.clone().requires_grad_()
    loss, weight = task.loss(Outputs(outputs), encoded.targets.tensor(), None)
    loss.backward()
    assert loss.shape == weight.shape == ()
    assert 0 < weight <= 6
    assert outputs.grad.abs().sum() > 0
    figures = task.figures(OUTPUTS, torch.from_numpy(targets))
    assert set(figures) == set(task.metrics)
    assert chosen_metric(task, None) == task.metrics[0]
    predictions = task.answers(Outputs(OUTPUTS), examples, names, lambda: None)
    assert len(predictions) == 6
    kinds = {"text": str, "number": float, "texts": list, "numbers": list}
    for prediction in predictions:
        assert {name: type(value) for name, value in prediction.items()} == {
            name: kinds[kind] for name, kind in task.columns(names).items()
        }


def test_the_names_choose_the_task():
    assert isinstance(task_of("text-classification", "text"), Classification)
    assert isinstance(task_of("image-classification", "image"), Classification)
    several = ClassificationSettings(multi_label=True)
    found = task_of("image-classification", "image", several).at_threshold(0.3)
    assert found == MultiLabel(0.3, several, IMAGE)
    contrastive = SimilaritySettings("supervised-contrastive")
    assert task_of("similarity", "text", contrastive) == Similarity(contrastive)


@pytest.mark.parametrize(
    ("task", "what"), [(Classification(), "classes"), (MultiLabel(), "classes"), (Similarity(), "groups")]
)
def test_one_class_alone_cannot_be_learnt(task: Task, what):
    with pytest.raises(DataError, match=rf"only the label 'x'.*at least two {what}"):
        task.names_of(["x", "x"])


def test_numbers_come_in_their_order():
    assert Classification().names_of(["10", "9", "b", "1", "a"]) == ["1", "9", "10", "a", "b"]


@pytest.mark.parametrize(
    "names",
    [["7", "²", "③"], ["٣", "१२", "b"], [5000 * "1", 5000 * "2", 5001 * "1"], ["01", "1", "١", "2"], ["½", "Ⅷ", "一"]],
)
def test_digits_of_any_script_and_number_are_names_in_a_fixed_order(names):
    assert Classification().names_of(names) == names
    assert Classification().names_of(names[::-1]) == names


def test_vectors_of_two_flags_leave_nothing_to_learn():
    task = MultiLabel()
    names = task.names_of(["1", "0", "0", "1"])
    targets = Targets(task.targets([("1", "0"), ("0", "1")], names))
    with pytest.raises(DataError, match=r"every record has all of the classes 0, 1.*vectors of flags"):
        task.check_data(targets, names)
    task.check_data(Targets(task.targets([("1", "0"), ("0",)], names)), names)
    task.check_data(targets, names, "--eval: ")


@pytest.mark.parametrize("task", [Classification(), Similarity()])
def test_several_labels_are_refused_where_one_is_expected(task):
    with pytest.raises(DataError, match=r"\['a', 'b'\]"):
        task.classes_in(("a", "b"))


@pytest.mark.parametrize(
    ("metric", "new", "old", "better"),
    [("loss", 0.5, 0.6, True), ("loss", 0.6, 0.5, False), ("rrp", 0.6, 0.5, True), ("rrp", 0.5, 0.5, False)],
)
def test_a_loss_is_better_when_smaller(metric, new, old, better):
    assert is_better(metric, {metric: new}, {metric: old}) is better
    assert is_better(metric, {metric: new}, None)


def test_a_metric_of_another_task_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match=r"--metric accuracy.*rrp"):
        chosen_metric(Similarity(), "accuracy")
    assert chosen_metric(Classification(), "accuracy") == "accuracy"


def test_the_options_know_every_task_and_every_metric():
    assert {name: kind.settings for name, kind in KINDS.items()} == TASKS_OF_SETTINGS
    options = [kind() for kind in dict.fromkeys(TASKS_OF_SETTINGS.values())]
    options += [ClassificationSettings(multi_label=True), PairSettings("cosent")]
    tasks = [
        task_of(name, kind.modalities[0], own)
        for name, kind in KINDS.items()
        for own in options
        if isinstance(own, kind.settings)
    ]
    assert {metric for task in tasks for metric in task.metrics} == set(get_args(Metric))


# Classification


def test_accuracy_f1_and_class_weights_are_their_definitions():
    task = Classification()
    targets = task.targets(SINGLE, NAMES)
    found = OUTPUTS.argmax(dim=1).numpy()
    figures = task.figures(OUTPUTS, torch.from_numpy(targets))
    assert figures["accuracy"] == pytest.approx((found == targets).mean())
    assert figures["macro_f1"] == pytest.approx(np.mean([f1(found == one, targets == one) for one in range(3)]))
    assert task.weights(Targets(targets), NAMES) is None
    weights = Classification(BALANCED).weights(Targets(targets), NAMES)
    assert weights.tolist() == pytest.approx([6 / 9, 6 / 6, 6 / 3])
    _, weight = task.loss(Outputs(OUTPUTS), torch.from_numpy(targets), weights)
    assert float(weight) == pytest.approx(float(weights[targets].sum()))


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_label_smoothing_is_cross_entropy_with_labels_that_are_spread(weights):
    task = Classification(ClassificationSettings(class_weights=weights, label_smoothing=0.2))
    targets = torch.from_numpy(task.targets(SINGLE, NAMES))
    classes = task.weights(Targets(targets.numpy()), NAMES)
    spread = 0.8 * torch.nn.functional.one_hot(targets, 3) + 0.2 / 3
    each = -(spread * OUTPUTS.log_softmax(dim=1)).sum(dim=1)
    own = torch.ones(6) if classes is None else classes[targets]
    total, weight = task.loss(Outputs(OUTPUTS), targets, classes)
    assert float(total) == pytest.approx(float((own * each).sum()), rel=1e-5)
    assert float(weight) == pytest.approx(float(own.sum()))
    assert task.figures(OUTPUTS, targets) == Classification().figures(OUTPUTS, targets)


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_label_smoothing_of_several_labels_moves_each_target_towards_one_half(weights):
    settings = ClassificationSettings(multi_label=True, class_weights=weights, label_smoothing=0.2)
    task = MultiLabel(settings=settings)
    targets = torch.from_numpy(task.targets(SEVERAL, NAMES))
    classes = task.weights(Targets(targets.numpy()), NAMES)
    scores, spread = torch.sigmoid(OUTPUTS), 0.8 * targets + 0.1
    each = -(spread * scores.log() + (1 - spread) * (1 - scores).log())
    if classes is not None:
        each = each * (1 + targets * (classes - 1))
    found = float(task.loss(Outputs(OUTPUTS), targets, classes)[0])
    assert found == pytest.approx(float(each.mean(dim=1).sum()), rel=1e-5)


@pytest.mark.parametrize("several", [False, True])
def test_balanced_weights_and_label_smoothing_together_still_learn_the_common_class(several):
    settings = ClassificationSettings(multi_label=several, class_weights="balanced", label_smoothing=0.1)
    task = MultiLabel(settings=settings) if several else Classification(settings)
    labels = [("a",), *[()] * 99] if several else ["a", *["b"] * 99]
    targets = torch.from_numpy(task.targets(labels, ["a", "b"]))
    if several:
        targets[:, 1] = 1 - targets[:, 0]  # each class is there or not, and one of them seldom
    weights = task.weights(Targets(targets.numpy()), ["a", "b"])
    logits = torch.zeros(100, 2, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        task.loss(Outputs(logits), targets, weights)[0].backward()
        optimizer.step()
    wanted = targets if several else torch.nn.functional.one_hot(targets, 2)
    assert torch.equal((logits > logits.flip(1)).long(), wanted.long())
    if several:
        assert torch.equal((logits > 0).long(), wanted.long())


def test_label_smoothing_of_tags_leaves_rows_without_a_tag_out():
    task = TokenClassification(TokenSettings(label_smoothing=0.2))
    logits = OUTPUTS.reshape(2, 3, 3)
    targets = torch.tensor([[IGNORED, 2, 0], [1, IGNORED, IGNORED]])
    spread = 0.8 * torch.eye(3)[[2, 0, 1]] + 0.2 / 3
    each = -(spread * OUTPUTS[[1, 2, 3]].log_softmax(dim=1))
    total, weight = task.loss(Outputs(logits, torch.tensor([3, 3])), targets, None)
    assert float(total) == pytest.approx(float(each.sum()), rel=1e-5)
    assert float(weight) == 3


LADDER = HeadLayerSettings("ladder")


@pytest.mark.parametrize(
    ("kind", "given", "share"),
    [
        ("text-classification", {}, 0.0),
        ("text-classification", {"label_smoothing": 0.2}, 0.2),
        ("text-classification", {"layers": LADDER}, 0.1),
        ("text-classification", {"layers": LADDER, "label_smoothing": 0.0}, 0.0),
        ("text-classification", {"multi_label": True, "layers": LADDER}, 0.1),
        ("token-classification", {"layers": LADDER}, 0.1),
        ("token-classification", {}, 0.0),
    ],
)
def test_the_smoothing_is_a_ladders_by_default_and_is_part_of_what_a_training_is_known_by(kind, given, share):
    assert task_of(kind, "text", KINDS[kind].settings(**given)).identity()["label_smoothing"] == share


# Multi-label


def test_multi_label_figures_are_their_definitions():
    task = MultiLabel()
    targets = task.targets(SEVERAL, NAMES)
    assert targets.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 1], [0, 1, 1]]
    figures = task.figures(OUTPUTS, torch.from_numpy(targets))
    found, wanted = OUTPUTS.numpy() > 0, targets.astype(bool)
    assert figures["micro_f1"] == pytest.approx(f1(found, wanted))
    assert figures["macro_f1"] == pytest.approx(np.mean([f1(found[:, one], wanted[:, one]) for one in range(3)]))
    each = [average_precision(OUTPUTS[:, one].numpy(), wanted[:, one]) for one in range(3)]
    assert figures["mean_average_precision"] == pytest.approx(np.mean(each))
    logits, ones = OUTPUTS.double().numpy(), targets
    entropy = -(ones * np.log(1 / (1 + np.exp(-logits))) + (1 - ones) * np.log(1 - 1 / (1 + np.exp(-logits))))
    assert figures["loss"] == pytest.approx(entropy.mean())


def test_a_class_that_no_sample_has_leaves_the_mean_of_the_others():
    task = MultiLabel()
    targets = torch.from_numpy(task.targets([("a",), (), ("a", "b"), (), ("b",), ()], NAMES))
    both = task.figures(OUTPUTS[:, :2], targets[:, :2])["mean_average_precision"]
    assert task.figures(OUTPUTS, targets)["mean_average_precision"] == pytest.approx(both)
    assert task.figures(OUTPUTS, torch.zeros(6, 3))["mean_average_precision"] == 0


def test_balanced_weights_make_positives_count_as_much_as_negatives():
    task = MultiLabel(settings=BALANCED)
    targets = task.targets(SEVERAL, NAMES)
    weights = task.weights(Targets(targets), NAMES)
    assert weights.tolist() == pytest.approx([2, 1, 1])
    assert task.loss(Outputs(OUTPUTS), torch.from_numpy(targets), weights)[1] == 6


def test_the_threshold_decides_what_is_predicted():
    logits = torch.tensor([[2.0, 0.0, -2.0], [-3.0, -3.0, -3.0]])
    high, low = (MultiLabel(threshold).answers(Outputs(logits), [], NAMES, lambda: None) for threshold in (0.6, 0.1))
    assert [one["labels"] for one in high] == [["a"], []]
    assert [one["labels"] for one in low] == [["a", "b", "c"], []]
    assert high[0]["score_c"] == pytest.approx(1 / (1 + np.exp(2)))


# Similarity


def test_embeddings_have_length_one():
    for one in Similarity().answers(Outputs(OUTPUTS), [], NAMES, lambda: None):
        assert np.linalg.norm(one["embedding"]) == pytest.approx(1)


def test_class_weights_have_no_meaning_for_groups():
    with pytest.raises(UsageError, match="--class-weights"):
        task_of("similarity", "text", BALANCED)


@pytest.mark.parametrize("loss", ["triplet", "supervised-contrastive"])
def test_a_sample_that_finds_nothing_to_compare_counts_for_nothing_in_a_step(loss):
    task = Similarity(SimilaritySettings(loss))

    def weight(groups):
        vectors = OUTPUTS[torch.arange(len(groups)) % 6]
        return float(task.loss(Outputs(vectors), torch.tensor(groups, dtype=torch.int64), None)[1])

    assert weight([0, 0, 1, 1, 2]) == 4
    assert weight([0, 1, 1, 2, 3]) == 2
    assert weight([0, 0, 0]) == 3 * (loss != "triplet")
    assert weight([]) == 0
