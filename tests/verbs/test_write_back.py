"""What `predict --write-back` adds to a store is what `precompute` would add: every cut, and compressed alike."""

from dataclasses import replace

import numpy as np
import pytest

from recycle_cli.keys import Sample, keys_of
from recycle_cli.models import NamedModel
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings, PredictSettings, TrainingSettings
from recycle_cli.store import Store, verify
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.records import records, write_csv

TEST = records(24, seed=1)
HELD = 8
"""Records of TEST that a store holds before the rest are written back."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def model(tiny_bert):
    return ModelSettings(str(tiny_bert), None, 16)


@pytest.fixture(scope="module")
def run(folder, model):
    """A RUN of four blocks, of which it trained the last two."""
    train = CorpusSettings((str(write_csv(folder / "train.csv", records(40))),))
    job = Job(train, str(folder / "run"), cut="2", model_named=True, tensorboard=False)
    finetune(job, model, TrainingSettings(epochs=2, batch_size=8, learning_rate=5e-3))
    return str(folder / "run")


@pytest.fixture(scope="module")
def test(folder):
    return CorpusSettings((str(write_csv(folder / "test.csv", TEST)),))


@pytest.fixture
def fill(test, model, tmp_path):
    """Precompute the first records into a new store."""

    def fill(name, cuts, count=HELD, **options):
        settings = PrecomputeSettings(cuts, "float32", **options)
        precompute(replace(test, limit=count), str(tmp_path / name), model, settings)
        return str(tmp_path / name)

    return fill


def write_back(run, test, store):
    """The hits of a prediction that adds the misses to the store."""
    return predict(
        test, run, store, f"{store}.csv", ModelSettings(), PredictSettings(write_back=True, batch_tokens=64)
    ).hits


def rows(path, cut):
    """The rows of each record of TEST, in their order."""
    store = Store.open(path)
    positions = store.lookup(*keys_of([Sample(str(at), {"text": one["text"]}) for at, one in enumerate(TEST)]))
    assert (positions >= 0).all()
    return [store.read(cut, at) for at in positions.tolist()]


def trunk_digests(model, cuts):
    return NamedModel(model).open().split(cuts, "float32").recipe.cuts


def test_the_run_has_layers_of_its_own_behind_its_cut(run, model):
    """Else the tests below show nothing."""
    own, base = (trunk_digests(one, ("2", "3", "4")) for one in (ModelSettings(run, None, 16), model))
    assert [own[cut] == base[cut] for cut in ("2", "3", "4")] == [True, False, False]


FEW = [pytest.param(cuts, marks=pytest.mark.long) for cuts in (("2",), ("1", "2"))]


@pytest.mark.parametrize("cuts", [*FEW, ("2", "4"), ("1", "2", "3")])
def test_it_writes_every_cut_of_the_store_as_precompute_does(run, test, fill, cuts):
    """Rows behind the RUN's cut are those of the store's model, and not of the layers that the RUN trained."""
    store, whole = fill("store", cuts), fill("whole", cuts, len(TEST))
    assert write_back(run, test, store) == HELD
    for cut in cuts:
        for found, expected in zip(rows(store, cut), rows(whole, cut), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)
    assert verify(store)["damaged"] == []
    assert Store.open(store).fingerprint == Store.open(whole).fingerprint
    assert [segment.origins for segment in Store.open(store).segments] == [{"record"}] * 2
    assert write_back(run, test, store) == len(TEST)


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_it_compresses_as_the_store_is(run, test, fill, codec):
    store = fill("store", ("2",), codec=codec)
    write_back(run, test, store)
    assert [segment.codec for segment in Store.open(store).segments] == [codec, codec]


def test_it_compresses_as_the_newest_segment_is(run, test, fill):
    fill("store", ("2",), HELD // 2, codec="zstd")
    store = fill("store", ("2",), codec="lz4")
    write_back(run, test, store)
    assert [segment.codec for segment in Store.open(store).by_age().list] == ["zstd", "lz4", "lz4"]
