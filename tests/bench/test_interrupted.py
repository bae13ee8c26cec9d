"""A plan or a bench that is stopped in a training says so in its own words, which name no --resume."""

import os
import signal
from collections.abc import Iterator

import pytest

import recycle_cli.training.loop as loop
from recycle_cli.bench.run import bench
from recycle_cli.errors import Interrupted
from recycle_cli.plan.run import plan
from recycle_cli.runtime.signals import raise_on_signals
from recycle_cli.settings import BenchSettings, CorpusSettings, ModelSettings, PlanSettings
from tests.records import records, write_csv


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    raise_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("verb", ["plan", "bench"])
def test_it_says_that_nothing_is_kept_and_leaves_no_files(verb, tmp_path, tiny_bert, monkeypatch):
    write_csv(tmp_path / "texts.csv", records(64, longest=8))
    steps, real = [], loop._step

    def stopped(*arguments):
        real(*arguments)
        steps.append(arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "_step", stopped)
    corpus, model = CorpusSettings((str(tmp_path / "texts.csv"),)), ModelSettings(str(tiny_bert), device="cpu")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    started = {
        "plan": lambda: plan(corpus, model, PlanSettings(("50%",), sample=32, batch_size=8), str(scratch)),
        "bench": lambda: bench(
            corpus, model, BenchSettings(("finetune",), ("50%",), batch_size=8), scratch=str(scratch)
        ),
    }
    with pytest.raises(Interrupted, match=rf"^interrupted; nothing is kept, as a {verb} shows its figures at the end$"):
        started[verb]()
    assert len(steps) == 1
    assert list(scratch.iterdir()) == []
