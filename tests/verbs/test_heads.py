"""Several heads from one read: each is, byte for byte, the run that it would have been alone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from recycle_cli.batches import StoredRows
from recycle_cli.errors import DataError, Interrupted, UsageError
from recycle_cli.settings import (
    AdapterSettings,
    ClassificationSettings,
    CorpusSettings,
    HeadSettings,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    TrainingSettings,
)
from recycle_cli.training import Head, Trainer
from recycle_cli.verbs import finetune as module
from recycle_cli.verbs.finetune import Job, finetune, finetune_heads
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.conftest import tiny_config
from tests.records import records, write_csv
from tests.trainings import log_of, stopped_after, stopped_when

SHARED = TrainingSettings(epochs=3, batch_size=8, accumulation=2, learning_rate=2e-3, order_seed=5)
BALANCED = ClassificationSettings(class_weights="balanced")
LORA = AdapterSettings("lora", rank=4, dropout=0.1)
HEADS = [
    HeadSettings("plain", SHARED),
    HeadSettings("balanced", replace(SHARED, seed=3, learning_rate=1e-3, task=BALANCED, metric="loss")),
    HeadSettings("lora", replace(SHARED, seed=3, adapter=LORA, epochs=2, weight_decay=0.1, eval_steps=3)),
    HeadSettings("patient", replace(SHARED, learning_rate=0.0, patience=1)),
]
"""They differ in all that a head may choose; 50 samples are 7 batches and 4 steps an epoch, dropout as usual."""


def place(label, mood):
    return {"text": label["text"], "topic": label["label"], "mood": mood}


def moods(rows):
    """The topics, and beside them a second label, which some records lack."""
    return [place(row, "" if number % 5 == 0 else "glum" if number % 3 else "gay") for number, row in enumerate(rows)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("heads")


@pytest.fixture(scope="module")
def train(folder):
    return CorpusSettings((str(write_csv(folder / "train.csv", moods(records(50)))),), label_column="topic")


@pytest.fixture(scope="module")
def test(folder):
    return CorpusSettings((str(write_csv(folder / "test.csv", moods(records(30, seed=1)))),), label_column="topic")


@pytest.fixture(scope="module")
def store(folder, train, test, tiny_bert):
    both = CorpusSettings((*train.source, *test.source))
    precompute(both, str(folder / "store"), ModelSettings(str(tiny_bert), None, 16), PrecomputeSettings(("2", "4")))
    return str(folder / "store")


@pytest.fixture
def fit(train, test, store):
    """Fine-tune heads (or with settings, one alone) from the store at cut 2, evaluating on the test data."""

    def fit(output, heads=HEADS, **changes):
        job = replace(Job(train, str(output), store, test, cut="2", tensorboard=False), **changes)
        if isinstance(heads, TrainingSettings):
            return finetune(job, ModelSettings(), heads)
        return finetune_heads(job, ModelSettings(), [replace(head, label_column="topic") for head in heads])

    return fit


def of(column, name=None, training=SHARED):
    return HeadSettings(name or column, training, column)


@pytest.fixture
def targets(train, test, store, tmp_path):
    def targets(heads, **changes):
        job = replace(Job(train, str(tmp_path / "runs"), store, test, cut="2", tensorboard=False), **changes)
        return finetune_heads(job, ModelSettings(), heads)

    return targets


@pytest.fixture(scope="module")
def alone(train, test, store, tmp_path_factory):
    """Each head's RUN, trained alone."""
    output = tmp_path_factory.mktemp("alone")
    for head in HEADS:
        job = Job(train, str(output / head.name), store, test, cut="2", tensorboard=False)
        finetune(job, ModelSettings(), head.training)
    return output


def same(runs, alone, names=tuple(head.name for head in HEADS)):
    for name in names:
        for file in ("metrics.jsonl", "model.safetensors"):
            assert (runs / name / file).read_bytes() == (alone / name / file).read_bytes(), f"{name}/{file}"
        reports = [json.loads((root / name / "recycle.json").read_text())["report"] for root in (runs, alone)]
        for figure in ("metrics", "best_epoch", "samples", "classes"):
            assert reports[0][figure] == reports[1][figure]


def test_each_head_is_the_run_that_it_would_have_been_alone(fit, alone, tmp_path):
    report = fit(tmp_path)
    same(tmp_path, alone)
    assert report.samples_per_second * report.train_seconds == pytest.approx(50 * (3 + 3 + 2 + 2))
    assert [head["name"] for head in report.heads] == [head.name for head in HEADS]
    assert [len(head["epoch_seconds"]) for head in report.heads] == [3, 3, 2, 2]
    assert report.heads[1]["output"] == str(tmp_path / "balanced")


def test_the_store_is_read_once_for_all(fit, tmp_path, monkeypatch):
    load, read = StoredRows.load, []

    def counting(rows, members, window=None):
        read.append(len(members))
        return load(rows, members, window)

    monkeypatch.setattr(StoredRows, "load", counting)
    fit(tmp_path, evaluation=None)
    assert sum(read) == 3 * 50


def test_the_trunk_is_in_memory_once(fit, tmp_path, monkeypatch):
    made = []

    def stop(heads, *rest):
        made.extend(heads)
        raise Interrupted

    monkeypatch.setattr(module, "train", stop)
    with pytest.raises(Interrupted):
        fit(tmp_path, HEADS[:2])
    first, second = (dict(one.head.split.model.named_parameters()) for one in made)
    owned = {name for name in first if first[name].data_ptr() != second[name].data_ptr()}
    assert owned == set(made[0].head.weights)
    assert not [name for name in owned if "embeddings" in name or ".layer.0." in name or ".layer.1." in name]


@pytest.mark.parametrize("saved", [2, 9, *(pytest.param(saved, marks=pytest.mark.long) for saved in (1, 3, 6))])
def test_interrupted_between_two_heads_and_resumed_it_is_the_undisturbed_run(fit, alone, tmp_path, saved):
    """Ctrl-C twice while checkpoints are written: the heads are at different places, and meet again."""
    steps = [replace(head, training=replace(head.training, save_steps=3)) for head in HEADS]
    with stopped_after(saved):
        fit(tmp_path, steps)
    fit(tmp_path, resume=True)
    same(tmp_path, alone)


def test_a_resume_leaves_finished_heads_alone_and_takes_in_new_ones(fit, alone, tmp_path):
    fit(tmp_path, HEADS[:1])
    before = (tmp_path / "plain" / "recycle.json").stat().st_mtime_ns
    report = fit(tmp_path, resume=True)
    same(tmp_path, alone)
    assert (tmp_path / "plain" / "recycle.json").stat().st_mtime_ns == before
    assert [head["name"] for head in report.heads] == [head.name for head in HEADS]
    with pytest.raises(UsageError, match=r"all heads in .* are finished"):
        fit(tmp_path, resume=True)
    assert (report.train_seconds, report.samples_per_second) == (None, None), "they did not train at the same time"
    with pytest.raises(UsageError, match="finished run; add --overwrite"):
        fit(tmp_path)


@pytest.mark.parametrize(
    ("first", "asked", "said"),
    [
        (of("topic"), of("topic", training=replace(SHARED, learning_rate=1e-5)), r"topic: learning_rate was 0\.002 "),
        (of("topic"), of("mood", "topic"), "topic: data was "),
    ],
)
def test_a_resume_with_other_settings_of_a_finished_head_is_refused(targets, tmp_path, first, asked, said):
    """Else the old figures would be the answer to the new question."""
    targets([first])
    with pytest.raises(UsageError, match=said):
        targets([asked, of("topic", "new")], resume=True)
    assert not (tmp_path / "runs" / "new").exists()


def test_a_head_that_writes_into_its_rows_disturbs_no_other(fit, alone, tmp_path, monkeypatch):
    """As an in-place first operation does; not in the first batches, so that no probe of them would tell."""
    calls = []

    forward = Head.forward

    def writing(head, batch):
        found = forward(head, {**batch, "rows": batch["rows"].clone()})
        calls.append(head.cut)
        if len(calls) > len(HEADS):
            batch["rows"].zero_()
        return found

    monkeypatch.setattr(Head, "forward", writing)
    fit(tmp_path)
    same(tmp_path, alone)


def test_a_head_can_be_resumed_alone(fit, alone, tmp_path):
    """It is a run like any other, whichever command began it."""
    with stopped_when(lambda head: head.name == "patient"):
        fit(tmp_path)
    fit(tmp_path / "balanced", HEADS[1].training, resume=True)
    same(tmp_path, alone, ["balanced"])


def test_a_head_that_diverges_is_named(fit, tmp_path):
    hot = HeadSettings("hot", replace(SHARED, learning_rate=1e30))
    with pytest.raises(DataError, match=r"^head 'hot': .* became (nan|inf).*lower --learning-rate"):
        fit(tmp_path, [HEADS[0], hot])


# Several columns of labels


def test_a_head_learns_from_the_records_that_have_its_label(targets, fit, train, test, tmp_path):
    report = targets([of("topic"), of("mood")])
    topic, mood = report.heads
    assert (topic["samples"], mood["samples"]) == (50, 40)
    assert (topic["evaluation_samples"], mood["evaluation_samples"]) == (30, 24)
    assert (topic["classes"], mood["classes"]) == (["art", "bio", "code"], ["gay", "glum"])
    fit(tmp_path / "alone" / "topic", SHARED)
    same(tmp_path / "runs", tmp_path / "alone", ["topic"])
    steps = [line for line in log_of(tmp_path / "runs" / "mood") if "samples" in line]
    assert sum(line["samples"] for line in steps) == 3 * 40
    scored = predict(
        replace(test, label_column="mood"),
        str(tmp_path / "runs" / "mood"),
        None,
        str(tmp_path / "out.csv"),
        ModelSettings(),
        PredictSettings(),
    )
    assert scored.metrics == pytest.approx(mood["metrics"], abs=1e-4)


def test_the_loss_of_a_batch_is_the_mean_over_the_labelled(targets, train, make_tiny, tmp_path):
    """As if the others were not there: with one batch an epoch and no dropout, a run on the labelled alone."""
    still = make_tiny("still", tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), bare=True)
    store = str(tmp_path / "still-store")
    precompute(train, store, ModelSettings(str(still), None, 16), PrecomputeSettings(("2",)))
    whole = replace(SHARED, batch_size=64, accumulation=1)
    targets([of("topic", training=whole), of("mood", training=whole)], store=store, evaluation=None)
    rows = [row for row in moods(records(50)) if row["mood"]]
    labelled = CorpusSettings((str(write_csv(tmp_path / "labelled.csv", rows)),))
    targets([of("mood", "alone", whole)], store=store, data=labelled, evaluation=None)
    together, alone = ([line["loss"] for line in log_of(tmp_path / "runs" / name)] for name in ("mood", "alone"))
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_step_without_any_label_is_none(train, test, store, tmp_path):
    """Batches of one: every fifth has no mood; the steps are counted, so that the learning rate is the others'."""
    single = replace(SHARED, batch_size=1, accumulation=1, epochs=1)
    job = Job(train, str(tmp_path), store, cut="2", tensorboard=False)
    finetune_heads(job, ModelSettings(), [of("topic", training=single), of("mood", training=single)])
    topic, mood = (log_of(tmp_path / name) for name in ("topic", "mood"))
    assert (len(topic), len(mood)) == (50, 40)
    rates = {line["step"]: line["learning_rate"] for line in topic}
    assert all(rates[line["step"]] == line["learning_rate"] for line in mood)


def test_a_batch_that_batchnorm_could_not_train_on_counts_for_nothing(targets, tmp_path, monkeypatch):
    """In batches of two every fifth label is missing: if one is left, the step's loss is the other batch's mean."""
    monkeypatch.setattr(Trainer, "least", 2)
    learn, found = Trainer.learn, []

    def kept(trainer, members, batch, **options):
        before = float(trainer._weight)
        learn(trainer, members, batch, **options)
        if trainer.name == "mood":
            found.append((len(trainer.learnable(members)), float(trainer._weight) - before))

    monkeypatch.setattr(Trainer, "learn", kept)
    pairs = replace(SHARED, batch_size=2, epochs=1)
    report = targets([of("topic", training=pairs), of("mood", training=pairs)], evaluation=None)
    taught = [count for count, _ in found]
    assert set(taught) == {0, 2}
    assert all((count > 0) == (weight > 0) for count, weight in found)
    steps = [line["samples"] for line in log_of(tmp_path / "runs" / "mood")]
    mood = report.heads[1]
    assert mood["samples_per_second"] * mood["train_seconds"] == pytest.approx(sum(steps))
    assert sum(steps) == sum(taught) < mood["samples"]


def test_a_column_with_too_few_labels_for_batchnorm_is_refused_before_training(targets, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "least", 3)
    rows = [{**row, "mood": {0: "gay", 1: "glum"}.get(number, "")} for number, row in enumerate(moods(records(50)))]
    data = CorpusSettings((str(write_csv(tmp_path / "few.csv", rows)),))
    with pytest.raises(DataError, match=r"head 'mood': no batch .* has 3 labelled samples \(2 in all\); label more"):
        targets([of("topic"), of("mood")], data=data, evaluation=None)


def test_targets_that_cannot_be(targets, tmp_path):
    with pytest.raises(DataError, match=r"no column 'sense' \(--label-column\); the columns are: text, topic, mood"):
        targets([of("topic"), of("sense")])
    with pytest.raises(UsageError, match="one head names no label-column, another 'topic'"):
        targets([of("topic"), of(None, "other")])
    with pytest.raises(UsageError, match="one read of a STORE"):
        targets([of("topic")], store=None)
    for name in ("checkpoint", "Recycle.json", "metrics.jsonl"):
        with pytest.raises(UsageError, match=f"head '{name}': a RUN has a file of this name"):
            targets([of("topic"), of("topic", name)])
    assert not (tmp_path / "runs").exists()
    shutil.copytree(Path(__file__).parents[1] / "kept" / "classes", tmp_path / "runs")
    with pytest.raises(UsageError, match="is a run itself"):
        targets([of("topic")])


def test_a_record_without_any_label_is_wrong(targets, tmp_path):
    rows = [{"text": "red data", "topic": "art", "mood": "gay"}, {"text": "the cell", "topic": "", "mood": ""}]
    data = CorpusSettings((str(write_csv(tmp_path / "gap.csv", rows)),))
    with pytest.raises(DataError, match="record 2: no label in any of the columns 'topic', 'mood'"):
        targets([of("topic"), of("mood")], data=data)
