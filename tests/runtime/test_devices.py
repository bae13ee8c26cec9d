"""Devices: what suits one, and the ways to it and back; on CUDA the verbs give what they give on the CPU."""

import dataclasses

import numpy as np
import pytest
import torch

from recycle_cli.errors import UsageError
from recycle_cli.runtime.devices import (
    ACCELERATOR_BATCH_TOKENS,
    CPU_BATCH_TOKENS,
    Fetching,
    batch_tokens_on,
    device_of,
    pinned,
)
from recycle_cli.runtime.overlap import prefetch
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings, PredictSettings, TrainingSettings
from recycle_cli.store import Store
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.records import records, write_csv

CPU = torch.device("cpu")


@pytest.mark.parametrize(("device", "expected"), [("cpu", CPU_BATCH_TOKENS), ("cuda", ACCELERATOR_BATCH_TOKENS)])
def test_batches_suit_the_device_unless_told_otherwise(device, expected):
    assert batch_tokens_on(torch.device(device), None) == expected
    assert batch_tokens_on(torch.device(device), 7) == 7


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="--device cuda:63 cannot be used"):
        device_of("cuda:63")


def test_the_cpu_gets_its_batches_as_they_are():
    batch = {"rows": torch.ones(2)}
    ((members, found),) = pinned([(3, batch)], CPU)
    assert members == 3
    assert found is batch
    fetching = Fetching(CPU)
    mark = fetching.ready()
    with fetching.after(mark):
        assert mark is None


@pytest.fixture
def corpus(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    return CorpusSettings((str(write_csv(tmp_path / "corpus.csv", records(400))),))


def verbs(corpus, folder, tiny_bert, device, precision="float32", dtype="float32"):
    """The store's rows in its own order of keys, the losses of a training, and the scores."""
    folder.mkdir()
    model = ModelSettings(str(tiny_bert), None, 16, device=device, precision=precision)
    # Small batches, so that many are under way at once.
    precompute(corpus, str(folder / "s"), model, PrecomputeSettings(("2",), dtype, batch_tokens=64))
    settings = TrainingSettings(epochs=2, batch_size=8, learning_rate=1e-3)
    trained = finetune(Job(corpus, str(folder / "run"), str(folder / "s"), corpus, tensorboard=False), model, settings)
    scoring = dataclasses.replace(model, name=str(folder / "run"))
    hits = predict(corpus, str(folder / "run"), str(folder / "s"), str(folder / "hits.csv"), scoring, PredictSettings())
    misses = predict(corpus, str(folder / "run"), None, str(folder / "misses.csv"), scoring, PredictSettings())
    store = Store.open(str(folder / "s"))
    positions = np.arange(len(store))
    values, _ = store.gather_rows("2", positions)
    return values, trained.metrics, hits.metrics, misses.metrics


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives(corpus, tmp_path, tiny_bert):
    there, here = (verbs(corpus, tmp_path / device, tiny_bert, device) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(there[0], here[0], atol=2e-3)
    for found, expected in zip(there[1:], here[1:], strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-2)
    assert there[2]["loss"] == pytest.approx(there[3]["loss"], rel=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_on_cuda_stays_near(corpus, tmp_path, tiny_bert, precision):
    mixed = verbs(corpus, tmp_path / "mixed", tiny_bert, "cuda", precision, "bfloat16")
    plain = verbs(corpus, tmp_path / "plain", tiny_bert, "cuda")
    assert mixed[2]["loss"] == pytest.approx(plain[2]["loss"], rel=0.2)


@pytest.mark.gpu
def test_what_is_fetched_is_what_was_computed_though_the_device_goes_on(corpus):
    device = torch.device("cuda")
    fetching, found = Fetching(device), []
    batches = ((at, {"x": torch.full((1 << 20,), float(at))}) for at in range(50))
    for at, batch in prefetch(pinned(batches, device)):
        assert batch["x"].is_pinned()
        computed = batch["x"].to(device, non_blocking=True) * 2
        mark = fetching.ready()
        torch.full((1 << 22,), -1.0, device=device).cumsum(0)
        with fetching.after(mark):
            found.append(computed.cpu())
        assert (found[-1] == 2 * at).all()
