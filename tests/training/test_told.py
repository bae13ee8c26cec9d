"""A person who watches a training is told of each epoch, each evaluation, each early end, and each resume."""

import re
from pathlib import Path

import pytest

from recycle_cli.errors import BarError, Interrupted, UsageError
from recycle_cli.settings import CorpusSettings, HeadSettings, Job, ModelSettings, PredictSettings, TrainingSettings
from recycle_cli.training import trainer as training
from recycle_cli.verbs.finetune import finetune, finetune_heads
from recycle_cli.verbs.precompute import PrecomputeSettings, precompute
from recycle_cli.verbs.predict import predict
from tests.records import records, write_csv

STILL = TrainingSettings(epochs=4, batch_size=8, learning_rate=0.0, patience=2)
"""It learns nothing, so the first evaluation remains the best."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_bert):
    folder = tmp_path_factory.mktemp("told")
    write_csv(folder / "train.csv", records(20))
    write_csv(folder / "test.csv", records(12, seed=1))
    both = CorpusSettings((str(folder / "train.csv"), str(folder / "test.csv")))
    precompute(both, str(folder / "store"), ModelSettings(str(tiny_bert), None, 16), PrecomputeSettings(("2",)))
    return folder


@pytest.fixture
def job(folder, tmp_path):
    def job(evaluated=True, **changes):
        data, test = (CorpusSettings((str(folder / f"{name}.csv"),)) for name in ("train", "test"))
        return Job(
            data,
            str(tmp_path / "run"),
            str(folder / "store"),
            test if evaluated else None,
            tensorboard=False,
            **changes,
        )

    return job


def told(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if "precompute" not in line]


def test_a_line_an_epoch_says_how_it_went_and_why_it_ended(job, capsys):
    report = finetune(job(), ModelSettings(), STILL)
    lines = told(capsys)
    score, loss = (f"{report.epochs[0]['metrics'][name]:.4f}" for name in ("macro_f1", "loss"))
    assert len(lines) == 4
    for number, (line, one) in enumerate(zip(lines, report.epochs, strict=False), 1):
        assert line.startswith(f"epoch {number} of 4: train loss {one['epoch_loss']:.4f}; macro_f1 {score} (best ")
        assert f", eval loss {loss}; {one['seconds']:.3g} s" in line
    assert "(best so far)" in lines[0]
    assert f"(best {score} in epoch 1)" in lines[1]
    assert lines[3] == (
        f"stopped early after epoch 3 of 4: 2 evaluations have brought no better macro_f1 than {score} in epoch 1"
    )
    assert (report.metric, report.best_epoch, report.best_step) == ("macro_f1", 1, 3)
    assert [(one["epoch"], one["step"]) for one in report.epochs] == [(1, 3), (2, 6), (3, 9)]
    assert [one["seconds"] for one in report.epochs] == report.epoch_seconds


def test_evaluations_between_epochs_are_told(job, capsys):
    settings = TrainingSettings(epochs=1, batch_size=8, eval_steps=1, learning_rate=0.0)
    finetune(job(), ModelSettings(), settings)
    first, second, last = told(capsys)
    scores = r"accuracy 0\.\d+, eval loss \d\.\d+"
    assert re.fullmatch(rf"epoch 1 of 1, step 1: macro_f1 0\.\d+ \(best so far\), {scores}", first)
    assert re.fullmatch(rf"epoch 1 of 1, step 2: macro_f1 0\.\d+ \(best 0\.\d+ in epoch 1\), {scores}", second)
    assert "in epoch 1)" in last


def test_heads_have_a_line_each_and_share_the_seconds(job, capsys):
    heads = [HeadSettings("still", STILL), HeadSettings("short", TrainingSettings(epochs=1, batch_size=8))]
    report = finetune_heads(job(evaluated=False), ModelSettings(), heads)
    lines = told(capsys)
    assert [line.partition(" train loss")[0] for line in lines[:4]] == [
        "still: epoch 1 of 4:",
        "short: epoch 1 of 1:",
        f"epoch 1: {report.heads[0]['epoch_seconds'][0]:.3g} s for 2 heads",
        "still: epoch 2 of 4:",
    ]
    assert lines[-1].endswith("s for one head")
    assert not [line for line in lines if "train loss" in line and line.endswith(" s")]


def test_a_resume_says_where_it_goes_on_and_tells_the_same_epochs(job, capsys, monkeypatch):
    record = training.step_record

    def interrupted(state, *rest):
        if state.step == 5:
            raise Interrupted
        return record(state, *rest)

    settings = TrainingSettings(epochs=2, batch_size=8, learning_rate=1e-3)
    monkeypatch.setattr(training, "step_record", interrupted)
    with pytest.raises(Interrupted):
        finetune(job(log=("csv",)), ModelSettings(), settings)
    monkeypatch.setattr(training, "step_record", record)
    first = told(capsys)
    report = finetune(job(log=("csv",), resume=True), ModelSettings(), settings)
    lines = told(capsys)
    assert lines[0] == "going on after step 3, in epoch 2 of 2"
    assert (len(first), len(lines)) == (1, 2)
    assert [one["epoch"] for one in report.epochs] == [1, 2]
    rows = Path(report.output, "metrics.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == ["1", "2", "3", "3", "3", "4", "5", "6", "6", "6"]


def test_what_is_required_is_judged_when_the_run_is_there(job, folder, tmp_path):
    settings = TrainingSettings(epochs=1, batch_size=8)
    with pytest.raises(
        BarError, match=r"^macro_f1 is 0\.\d+; >= 1\.5 was required; samples is 20; > 20 was required$"
    ) as missed:
        finetune(job(require=("macro_f1>=1.5", "loss<100", "samples>20")), ModelSettings(), settings)
    assert missed.value.report.output == str(tmp_path / "run")
    assert (tmp_path / "run" / "recycle.json").exists()
    data, out = CorpusSettings((str(folder / "test.csv"),)), str(tmp_path / "out.csv")
    predict(data, str(tmp_path / "run"), None, out, ModelSettings(), PredictSettings(require=("loss<100",)))
    with pytest.raises(BarError, match=r"^hits is 0; >= 1 was required$"):
        predict(data, str(tmp_path / "run"), None, out, ModelSettings(), PredictSettings(require=("hits>=1",)))


def test_each_head_or_the_one_that_is_named_must_meet_it(job):
    heads = [
        HeadSettings(name, TrainingSettings(epochs=epochs, batch_size=8)) for name, epochs in (("a", 1), ("b-2", 2))
    ]
    required = ("best_epoch>=2", "b-2.train_loss<100", "a.train_loss<=0")
    with pytest.raises(BarError) as missed:
        finetune_heads(job(evaluated=False, require=required), ModelSettings(), heads)
    first, second = str(missed.value).split("; ", 1)[0], str(missed.value)
    assert first == "a.best_epoch is 1"
    assert "b-2" not in second
    assert "a.train_loss is " in second
    assert [head["name"] for head in missed.value.report.heads] == ["a", "b-2"]


@pytest.mark.parametrize(
    ("evaluated", "require", "message"),
    [
        (False, "macro_f1>=0.8", "macro_f1 is not measured without --eval"),
        (True, "rrp>=0.8", "rrp is not measured here"),
        (True, "macro-f1>=0.8", "macro-f1 is not measured here; did you mean macro_f1"),
        (True, "macro_f1", "expected a figure"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_read(job, evaluated, require, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        finetune(job(evaluated, require=(require,)), ModelSettings(), STILL)
    assert not (tmp_path / "run").exists()
