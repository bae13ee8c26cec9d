"""Adapters, several heads, plan and bench with the tasks whose samples are not plain records."""

from dataclasses import replace

import pytest

from recycle_cli.bench.run import bench
from recycle_cli.errors import UsageError
from recycle_cli.plan.run import plan
from recycle_cli.settings import (
    AdapterSettings,
    BenchSettings,
    HeadSettings,
    ModelSettings,
    PlanSettings,
    PrecomputeSettings,
    SampleSettings,
    WindowSettings,
)
from recycle_cli.verbs.finetune import Job, finetune_heads
from recycle_cli.verbs.precompute import precompute
from tests.tasks import test_pair_similarity, test_question_answering
from tests.trainings import SETTINGS

ADAPTERS = {
    "lora": AdapterSettings("lora", rank=2, alpha=4),
    "bottleneck": AdapterSettings("bottleneck", save="apart", width=4),
}


@pytest.fixture(params=["questions", "pairs"])
def tried(request, tmp_path, tiny_bert):
    make = test_question_answering.make if request.param == "questions" else test_pair_similarity.make
    return make(tmp_path, tiny_bert)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_train_and_predict(tried, adapter):
    tried.fill()
    report = tried.fit("run", replace(SETTINGS, adapter=ADAPTERS[adapter]))
    found, rows = tried.score("run", tried.store)
    assert found.metrics == pytest.approx(report.metrics, abs=1e-5)
    assert len(rows) in (12, 15)


def test_several_heads_are_each_the_run_alone(tried):
    tried.fill()
    settings = {name: replace(SETTINGS, learning_rate=rate, task=tried.settings) for name, rate in HEADS.items()}
    job = Job(tried.train, str(tried.folder / "heads"), tried.store, tried.test, task=tried.name, tensorboard=False)
    report = finetune_heads(job, ModelSettings(), [HeadSettings(name, one) for name, one in settings.items()])
    for head in report.heads:
        alone = tried.fit(f"alone-{head['name']}", settings[head["name"]])
        assert head["metrics"] == pytest.approx(alone.metrics)
        assert tried.losses(f"heads/{head['name']}") == pytest.approx(tried.losses(f"alone-{head['name']}"), abs=1e-6)


HEADS = {"quick": 2e-3, "slow": 1e-4}


def test_a_plan_counts_the_samples_of_the_task(tried):
    samples = tried.precomputed["samples"]
    settings = PlanSettings(("2",), batch_size=4, sample=16, batches=1, repetitions=1, samples=samples)
    found = plan(tried.train, tried.model, settings)
    stored = tried.folder / "counted"
    made = precompute(tried.train, str(stored), tried.model, PrecomputeSettings(("2",), samples=samples))
    assert found.records in (32, 36)
    assert (found.samples, found.unique_samples, found.tokens) == (made.samples, made.new_samples, made.rows)
    assert found.samples > found.records


@pytest.mark.parametrize("tried", ["questions", pytest.param("pairs", marks=pytest.mark.long)], indirect=True)
def test_a_bench_trains_and_predicts_with_the_task(tried):
    settings = BenchSettings(
        ("precompute", "finetune", "predict"),
        ("2",),
        batch_size=4,
        batches=1,
        repetitions=1,
        samples=tried.precomputed["samples"],
    )
    figures = bench(tried.train, tried.model, settings).figures
    for name in ("finetune.store.epoch_seconds", "finetune.speedup_vs_full", "predict.store.samples_per_second"):
        assert figures[name].median > 0
    assert figures["finetune.trainer_full.seconds"].note == "the Trainer is measured for classification alone"


def test_options_of_samples_that_have_no_use_are_refused(tried):
    wrong = {
        "a record is its own sample here": SampleSettings(None, WindowSettings(4)),
        "only --task .*question-answering.* takes it": SampleSettings("text-classification", WindowSettings(4)),
    }
    for said, samples in wrong.items():
        with pytest.raises(UsageError, match=f"--stride: {said}"):
            precompute(tried.train, str(tried.folder / "s"), tried.model, PrecomputeSettings(("2",), samples=samples))
    with pytest.raises(UsageError, match="--label-column answers: labels are invented here"):
        bench(replace(tried.train, label_column="answers"), tried.model, BenchSettings(cuts=("2",)))
