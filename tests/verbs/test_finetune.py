"""A fine-tuning: the best checkpoint, early stopping, what a RUN holds, and resuming as if nothing had happened."""

import json
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from recycle_cli.errors import DataError, Interrupted, MismatchError, MissingError, UsageError
from recycle_cli.runtime import quick_masks as masks
from recycle_cli.settings import (
    ClassificationSettings,
    CorpusSettings,
    FileSettings,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    TrainingSettings,
)
from recycle_cli.store import Store
from recycle_cli.training import trainer as training
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.records import records, write_csv
from tests.trainings import log_of, stopped_after

SETTINGS = TrainingSettings(epochs=3, batch_size=8, learning_rate=2e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train.csv, test.csv, and a float32 store of both at the cuts 2 and 3."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def train(folder):
    return CorpusSettings((str(write_csv(folder / "train.csv", records(50))),))


@pytest.fixture(scope="module")
def test(folder):
    return CorpusSettings((str(write_csv(folder / "test.csv", records(30, seed=1))),))


@pytest.fixture(scope="module")
def model(tiny_bert):
    return ModelSettings(str(tiny_bert), None, 16)


@pytest.fixture(scope="module")
def store(folder, train, test, model):
    both = CorpusSettings((*train.source, *test.source))
    precompute(both, str(folder / "store"), model, PrecomputeSettings(("2", "3"), "float32"))
    return str(folder / "store")


@pytest.fixture
def fit(train, test, store):
    """Fine-tune from the store at cut 2, evaluating on the test data."""

    def fit(output, settings=SETTINGS, **changes):
        job = Job(train, str(output), store, test, cut="2", tensorboard=False)
        return finetune(replace(job, **changes), ModelSettings(), settings)

    return fit


def evaluations(output):
    return [line["evaluation"] for line in log_of(output) if "evaluation" in line]


@pytest.mark.parametrize(("metric", "choose"), [("macro_f1", max), ("accuracy", max), ("loss", min)])
def test_the_best_checkpoint_by_the_metric_is_kept(fit, test, tmp_path, metric, choose):
    report = fit(tmp_path / "run", replace(SETTINGS, metric=metric, epochs=6, learning_rate=2e-2))
    found = [one[metric] for one in evaluations(tmp_path / "run")]
    assert len(found) == 6
    assert found[-1] != choose(found), "the last is the best: this shows nothing"
    assert report.metrics[metric] == choose(found)
    assert report.best_epoch == 1 + found.index(choose(found))
    out = str(tmp_path / "out.csv")
    scored = predict(test, str(tmp_path / "run"), None, out, ModelSettings(), PredictSettings())
    assert scored.metrics == pytest.approx(report.metrics, abs=1e-5)


def test_patience_stops_early(fit, tmp_path):
    report = fit(tmp_path / "run", replace(SETTINGS, epochs=9, patience=2, learning_rate=0.0))
    assert len(report.epoch_seconds) == len(evaluations(tmp_path / "run")) == 3
    assert report.best_epoch == 1


def test_evaluations_between_epochs(fit, tmp_path):
    fit(tmp_path / "run", replace(SETTINGS, eval_steps=3, epochs=1))
    assert [line["step"] for line in log_of(tmp_path / "run") if "evaluation" in line] == [3, 6, 7]


def test_without_evaluation_the_last_weights_and_the_training_loss_stand(fit, tmp_path):
    report = fit(tmp_path / "run", evaluation=None)
    assert report.metrics == {"train_loss": log_of(tmp_path / "run")[-1]["loss"]}
    assert report.best_epoch == 3
    assert "there was no evaluation" in (tmp_path / "run" / "README.md").read_text()


def test_dropout_draws_its_masks_quickly_while_it_trains_and_not_after(fit, tmp_path, monkeypatch):
    drawn, plain = [], masks._bernoulli

    def counted(mask, *rest, **options):
        drawn.append(mask.shape)
        return plain(mask, *rest, **options)

    monkeypatch.setattr(masks, "_bernoulli", counted)
    fit(tmp_path / "run", replace(SETTINGS, epochs=1))
    assert {len(shape) for shape in drawn} >= {3, 4}  # of hidden states and of attention
    count = len(drawn)
    torch.empty(9).bernoulli_(0.5)
    assert len(drawn) == count


def test_a_run_is_an_ordinary_checkpoint_with_its_story(fit, tmp_path, store):
    report = fit(tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "recycle.json", "metrics.jsonl"} <= names
    assert not {"checkpoint", ".writable"} & names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".partial"))]
    network = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    assert list(network.config.id2label.values()) == report.classes == ["art", "bio", "code"]
    about = json.loads((tmp_path / "run" / "recycle.json").read_text())
    assert (about["cut"], about["max_length"]) == ("2", 16)
    assert about["fingerprint"]
    assert about["data"]
    assert {"recycle", "torch", "transformers"} <= about["versions"].keys()
    modes = {path.stat().st_mode for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert len(modes) == 1, "one may be read by others, another may not"
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"{report.metrics['macro_f1']:.4f}" in card
    assert (
        f"Measured on `test.csv`, with the best weights of the training (epoch {report.best_epoch}): accuracy" in card
    )
    assert report.store_hit_share == 1.0


# Resuming


INTERRUPTED = replace(SETTINGS, eval_steps=3, accumulation=2, batch_size=4, metric="loss")
"""13 batches and 7 steps an epoch, dropout as the model has it."""


@pytest.fixture
def interrupt_at(monkeypatch):
    """Ctrl-C while the step is done."""

    def interrupt_at(step):
        def recorded(state, *rest):
            if state.step == step:
                os.kill(os.getpid(), signal.SIGINT)
            return record(state, *rest)

        monkeypatch.setattr(training, "step_record", recorded)

    record = training.step_record
    yield interrupt_at
    monkeypatch.setattr(training, "step_record", record)


@pytest.fixture(scope="module")
def undisturbed(train, test, store, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    finetune(Job(train, str(output), store, test, cut="2", tensorboard=False), ModelSettings(), INTERRUPTED)
    return output


def same(run, undisturbed):
    assert (run / "metrics.jsonl").read_text() == (undisturbed / "metrics.jsonl").read_text()
    assert (run / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()


ALONE = [pytest.param([step], marks=pytest.mark.long) for step in (1, 3, 10)]


@pytest.mark.parametrize("steps", [*ALONE, [7], [21], [2, 5, 9]], ids=str)
def test_interrupted_and_resumed_it_is_the_undisturbed_run(fit, tmp_path, undisturbed, interrupt_at, steps):
    run = tmp_path / "run"
    for number, step in enumerate(steps):
        interrupt_at(step)
        with pytest.raises(Interrupted):
            fit(run, INTERRUPTED, resume=number > 0)
        assert log_of(run)[-1]["step"] == step
    interrupt_at(-1)
    report = fit(run, INTERRUPTED, resume=True)
    same(run, undisturbed)
    kept = json.loads((undisturbed / "recycle.json").read_text())["report"]
    assert (report.metrics, report.best_epoch) == (kept["metrics"], kept["best_epoch"])


def test_tensorboard_shows_a_step_once_though_a_resumed_run_does_it_again(train, store, tmp_path, interrupt_at):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    job = Job(train, str(tmp_path / "run"), store, cut="2")
    interrupt_at(5)
    with pytest.raises(Interrupted):
        finetune(job, ModelSettings(), INTERRUPTED)
    with SummaryWriter(str(tmp_path / "run" / "tensorboard")) as killed:
        for step in (6, 7):
            killed.add_scalar("train/loss", 99.0, step)
    interrupt_at(-1)
    finetune(replace(job, resume=True), ModelSettings(), INTERRUPTED)
    shown = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Scalars("train/loss")
    logged = [record for record in log_of(tmp_path / "run") if "loss" in record]
    assert [event.step for event in shown] == [record["step"] for record in logged]
    assert [event.value for event in shown] == pytest.approx([record["loss"] for record in logged])


def test_other_save_steps_and_no_parity_check_do_not_hinder_a_resume(fit, tmp_path, undisturbed, interrupt_at):
    interrupt_at(5)
    with pytest.raises(Interrupted):
        fit(tmp_path / "run", replace(INTERRUPTED, save_steps=2))
    interrupt_at(-1)
    fit(tmp_path / "run", replace(INTERRUPTED, parity_check=False), resume=True)
    same(tmp_path / "run", undisturbed)


def test_an_unfinished_run_is_neither_overwritten_nor_predicted_with(fit, test, tmp_path, interrupt_at):
    interrupt_at(5)
    with pytest.raises(Interrupted):
        fit(tmp_path / "run", INTERRUPTED)
    interrupt_at(-1)
    with pytest.raises(UsageError, match="unfinished run; add --resume"):
        fit(tmp_path / "run", INTERRUPTED)
    with pytest.raises(Exception, match="has not finished; go on with --resume"):
        predict(test, str(tmp_path / "run"), None, str(tmp_path / "o.csv"), ModelSettings(), PredictSettings())
    fit(tmp_path / "run", SETTINGS, overwrite=True)


@pytest.fixture(scope="module")
def begun(train, test, store, tmp_path_factory):
    """A run that was stopped after its second step."""
    output = tmp_path_factory.mktemp("begun") / "run"
    job = Job(train, str(output), store, test, cut="2", tensorboard=False)
    with stopped_after(1):
        finetune(job, ModelSettings(), replace(INTERRUPTED, save_steps=2))
    return output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 4}, "epochs was 3"),
        ({"learning_rate": 1e-4}, "learning_rate was 0.002"),
        ({"batch_size": 5}, "batch_size was 4"),
        ({"seed": 1}, "seed was 0"),
        ({"metric": "accuracy"}, "metric was loss"),
        ({"task": ClassificationSettings(class_weights="balanced")}, "class_weights was none"),
        (
            {"task": ClassificationSettings(label_smoothing=0.1)},
            "label_smoothing was 0.0 when .* is 0.1 now",
        ),
    ],
)
def test_another_setting_is_refused_by_name(fit, begun, change, message):
    before = (begun / "checkpoint" / "state.safetensors").read_bytes()
    with pytest.raises(UsageError, match=message):
        fit(begun, replace(INTERRUPTED, **change), resume=True)
    assert (begun / "checkpoint" / "state.safetensors").read_bytes() == before


@pytest.mark.parametrize("what", ["data", "evaluation", "cut"])
def test_other_data_or_another_cut_is_refused_by_name(fit, train, test, begun, what):
    other = {"data": replace(train, limit=49), "evaluation": replace(test, limit=20), "cut": "3"}
    with pytest.raises((UsageError, MismatchError), match=what):
        fit(begun, INTERRUPTED, resume=True, **{what: other[what]})


def test_a_finished_run_is_kept_unless_told_to_overwrite(fit, tmp_path):
    fit(tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="holds a finished run; add --overwrite"):
        fit(tmp_path / "run", replace(SETTINGS, seed=1))
    with pytest.raises(UsageError, match="finished"):
        fit(tmp_path / "run", replace(SETTINGS, seed=1), resume=True)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    fit(tmp_path / "run", replace(SETTINGS, seed=1), overwrite=True)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() != before


def test_a_folder_that_is_no_run_is_left_alone(fit, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not empty and is no run"):
        fit(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_failed_overwrite_leaves_the_old_run(fit, train, folder, tmp_path):
    fit(tmp_path / "run")
    more = replace(train, source=(str(write_csv(folder / "more.csv", records(60, seed=7))),))
    with pytest.raises(MissingError):
        fit(tmp_path / "run", data=more, overwrite=True)
    assert (tmp_path / "run" / "recycle.json").exists()


def test_a_diverging_training_says_so(fit, tmp_path):
    with pytest.raises(DataError, match=r"became (nan|inf).*lower --learning-rate \(now 1e\+30\)"):
        fit(tmp_path / "run", replace(SETTINGS, learning_rate=1e30))
    assert not (tmp_path / "run" / "recycle.json").exists()


# What the store lacks


@pytest.fixture
def partial(train, model, tmp_path):
    """A store of 30 of the 50 training samples at cut 2."""
    precompute(replace(train, limit=30), str(tmp_path / "partial"), model, PrecomputeSettings(("2",), "float32"))
    return str(tmp_path / "partial")


def test_missing_samples_fail_with_their_count(fit, partial, tmp_path):
    with pytest.raises(MissingError, match="lacks 20 of 50 samples; fill it with `recycle precompute"):
        fit(tmp_path / "run", store=partial, evaluation=None)


def test_missing_samples_that_came_through_a_pipe_are_asked_for_on_stdin(fit, train, partial, tmp_path):
    """The pipe's name may be one of this process alone, as /dev/fd/63 is."""
    pipe, content = tmp_path / "pipe", Path(train.source[0]).read_text()
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(content))
    writer.start()
    piped = replace(train, source=(str(pipe),), files=FileSettings("csv"))
    with pytest.raises(MissingError, match=r"fill it with `recycle precompute - .*--format csv.*`, with .* on stdin"):
        fit(tmp_path / "run", store=partial, data=piped, evaluation=None)
    writer.join()


def test_missing_samples_are_computed_on_request(fit, store, partial, tmp_path):
    computed = fit(tmp_path / "a", replace(SETTINGS, on_missing="compute"), store=partial, evaluation=None)
    assert (computed.samples, computed.store_hit_share) == (50, 0.6)
    fit(tmp_path / "b", evaluation=None)
    one, two = ([line["loss"] for line in log_of(tmp_path / name)] for name in "ab")
    np.testing.assert_allclose(one, two, atol=1e-4)
    assert fit(tmp_path / "c", store=partial, evaluation=None).store_hit_share == 1.0


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_missing_samples_are_compressed_as_the_store_is(fit, train, model, tmp_path, codec):
    store = str(tmp_path / "store")
    precompute(replace(train, limit=30), store, model, PrecomputeSettings(("2",), "float32", codec=codec))
    fit(tmp_path / "run", replace(SETTINGS, epochs=1, on_missing="compute"), store=store, evaluation=None)
    assert [segment.codec for segment in Store.open(store).segments] == [codec, codec]


def test_missing_samples_are_skipped_on_request(fit, train, partial, tmp_path):
    skipped = fit(tmp_path / "a", replace(SETTINGS, on_missing="skip"), store=partial, evaluation=None)
    assert (skipped.samples, skipped.store_hit_share) == (30, 0.6)
    fit(tmp_path / "b", store=partial, data=replace(train, limit=30), evaluation=None)
    assert [line["loss"] for line in log_of(tmp_path / "a")] == [line["loss"] for line in log_of(tmp_path / "b")]


def test_skipping_everything_is_missing(fit, test, partial, tmp_path):
    with pytest.raises(MissingError, match="holds none of the samples"):
        fit(tmp_path / "a", replace(SETTINGS, on_missing="skip"), store=partial, data=test, evaluation=None)


# Parity


def tamper(store, value=0x3C):
    """Overwrite the middle of every row array, behind the store's back."""
    for chunk in Path(store).glob("segments/*/cuts/*/values/c.*"):
        data = bytearray(chunk.read_bytes())
        data[: len(data) * 9 // 10] = bytes([value]) * (len(data) * 9 // 10)
        chunk.write_bytes(data)


def test_tampered_rows_are_refused_and_may_be_let_pass(fit, partial, tmp_path):
    tamper(partial)
    skip = replace(SETTINGS, on_missing="skip")
    with pytest.raises(MismatchError, match=r"not what the trunk gives now.*--no-parity-check"):
        fit(tmp_path / "run", skip, store=partial, evaluation=None)
    fit(tmp_path / "run", replace(skip, parity_check=False), store=partial, evaluation=None)


def test_a_changed_trunk_is_refused(train, model, partial, tmp_path):
    network = transformers.AutoModel.from_pretrained(model.name)
    with torch.no_grad():
        network.embeddings.word_embeddings.weight[7] += 0.01
    network.save_pretrained(tmp_path / "changed")
    transformers.AutoTokenizer.from_pretrained(model.name).save_pretrained(tmp_path / "changed")
    job = Job(train, str(tmp_path / "run"), partial, model_named=True, tensorboard=False)
    with pytest.raises(MismatchError, match="their weights differ"):
        finetune(job, ModelSettings(str(tmp_path / "changed")), replace(SETTINGS, on_missing="skip"))


# What must not change under a run that is resumed


def test_an_evaluation_at_the_last_step_of_an_epoch_counts_once(fit, tmp_path):
    settings = replace(SETTINGS, metric="loss", patience=1, epochs=4, learning_rate=1e-4)
    plain = fit(tmp_path / "plain", settings)
    doubled = fit(tmp_path / "doubled", replace(settings, eval_steps=7))
    assert len(evaluations(tmp_path / "doubled")) == len(doubled.epoch_seconds) == len(plain.epoch_seconds)


def test_a_resume_after_the_store_has_grown_is_refused(fit, train, model, partial, tmp_path, interrupt_at):
    settings = replace(INTERRUPTED, on_missing="skip")
    interrupt_at(2)
    with pytest.raises(Interrupted):
        fit(tmp_path / "run", settings, store=partial, evaluation=None)
    interrupt_at(-1)
    precompute(train, partial, model, PrecomputeSettings(("2",), "float32"))
    with pytest.raises(UsageError, match="data was"):
        fit(tmp_path / "run", settings, store=partial, evaluation=None, resume=True)


def test_a_resume_on_another_trunk_is_refused_without_a_store_too(train, model, tmp_path, interrupt_at):
    folder = tmp_path / "model"
    shutil.copytree(model.name, folder)
    job = Job(train, str(tmp_path / "run"), cut="2", model_named=True, tensorboard=False)
    interrupt_at(2)
    with pytest.raises(Interrupted):
        finetune(job, ModelSettings(str(folder), None, 16), INTERRUPTED)
    interrupt_at(-1)
    network = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        network.embeddings.word_embeddings.weight[7] += 0.01
    network.save_pretrained(folder)
    with pytest.raises(UsageError, match="fingerprint was"):
        finetune(replace(job, resume=True), ModelSettings(str(folder), None, 16), INTERRUPTED)


def test_a_resume_in_another_order_is_refused(fit, tmp_path, interrupt_at):
    interrupt_at(2)
    with pytest.raises(Interrupted):
        fit(tmp_path / "run", INTERRUPTED)
    interrupt_at(-1)
    with pytest.raises(UsageError, match="shuffled_order was"):
        fit(tmp_path / "run", replace(INTERRUPTED, memory=12_000), resume=True)


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"memory": 1 << 20}, {"store": None}, "--memory and --in-memory"),
        ({"memory": 1 << 20, "in_memory": True}, {}, "give one of the two"),
        ({"mixup": 0.2}, {}, "a STORE of images"),
    ],
)
def test_options_without_effect_are_refused(fit, tmp_path, settings, changes, message):
    with pytest.raises(UsageError, match=message):
        fit(tmp_path / "run", replace(SETTINGS, **settings), **changes)
