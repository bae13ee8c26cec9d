"""A ladder over the states of image models: patches of one length, and maps on one grid."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recycle_cli.errors import MismatchError, UsageError
from recycle_cli.models.ladder import Layout
from recycle_cli.settings import (
    ClassificationSettings,
    CorpusSettings,
    HeadLayerSettings,
    LadderSettings,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    TrainingSettings,
)
from recycle_cli.store import Store
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.models.vision.test_transformers import saved
from tests.tasks.corpora import shapes as images_of
from tests.trainings import fill_as_told, losses, stopped_after

LADDER = ClassificationSettings(layers=HeadLayerSettings("ladder", ladder=LadderSettings(16)))
SETTINGS = TrainingSettings(epochs=2, batch_size=16, seed=3, task=LADDER)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return images_of(tmp_path_factory.mktemp("shapes"))


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_a_ladder_learns_from_stored_images_what_it_learns_in_place(family, shapes, tmp_path):
    (tmp_path / "model").mkdir()
    model, store = saved(tmp_path / "model", family), str(tmp_path / "store")
    train, val = (CorpusSettings((str(shapes / name),)) for name in ("train", "val"))
    for corpus in (train, val):
        precompute(corpus, store, model, PrecomputeSettings(("every",), "float32"))
    cuts = list(Store.open(store).recipe.cuts)
    assert len(cuts) == 4
    job = Job(train, str(tmp_path / "stored"), store, val, task="image-classification", tensorboard=False)
    stored = finetune(job, ModelSettings(device="cpu"), SETTINGS)
    again = replace(job, output=str(tmp_path / "again"))
    with stopped_after():
        finetune(again, ModelSettings(device="cpu"), SETTINGS)
    resumed = finetune(replace(again, resume=True), ModelSettings(device="cpu"), SETTINGS)
    assert (losses(resumed.output), resumed.metrics) == (losses(stored.output), stored.metrics)
    inputs = Job(
        train,
        str(tmp_path / "in-place"),
        evaluation=val,
        task="image-classification",
        cut="every",
        model_named=True,
        tensorboard=False,
    )
    in_place = finetune(inputs, model, SETTINGS)
    assert stored.cut == in_place.cut == ",".join(cuts)
    np.testing.assert_allclose(losses(stored.output), losses(in_place.output), rtol=1e-3, atol=1e-4)
    for where in (store, None):
        output = str(tmp_path / "p.csv")
        found = predict(val, stored.output, where, output, ModelSettings(device="cpu"), PredictSettings())
        assert found.metrics == pytest.approx(stored.metrics, abs=1e-3)
        assert (found.hits > 0) == (where is not None)


def test_a_store_of_other_cuts_is_refused_with_the_command_that_fills_a_fitting_one(shapes, recycle, tmp_path):
    (tmp_path / "model").mkdir()
    model, store, other = saved(tmp_path / "model"), str(tmp_path / "store"), str(tmp_path / "other")
    train, val = (CorpusSettings((str(shapes / name),)) for name in ("train", "val"))
    for path, cuts in ((store, "every"), (other, "50%")):
        precompute(train, path, model, PrecomputeSettings((cuts,), "float32"))
    job = Job(train, str(tmp_path / "run"), store, task="image-classification", tensorboard=False)
    trained = finetune(job, ModelSettings(device="cpu"), SETTINGS)
    output, fitting = str(tmp_path / "p.csv"), str(tmp_path / "fitting")
    with pytest.raises(MismatchError, match="this RUN needs cut ") as caught:
        predict(val, trained.output, other, output, ModelSettings(device="cpu"), PredictSettings())
    fill_as_told(recycle, caught, shapes / "val", fitting)
    assert Store.open(fitting).recipe.dtype == "float32"
    found = predict(val, trained.output, fitting, output, ModelSettings(device="cpu"), PredictSettings())
    assert (found.misses, found.hits > 0) == (0, True)


def test_maps_become_places_of_one_grid():
    layout = Layout(((2, 8, 8), (3, 4, 4)))
    assert (layout.width, layout.side, layout.places) == (3, 4, 16)
    large, small = torch.randn(5, 1, 2, 8, 8), torch.randn(5, 1, 3, 4, 4)
    states, lengths = layout.states([large, small], torch.ones(5, dtype=torch.int64))
    assert [own.shape for own in states] == [(5, 16, 3)] * 2
    assert lengths.tolist() == [16] * 5
    torch.testing.assert_close(states[1], small[:, 0].flatten(2).transpose(1, 2))
    torch.testing.assert_close(states[0][:, 0, :2], large[:, 0, :, :2, :2].mean(dim=(2, 3)))
    assert not states[0][:, :, 2].any()


def test_maps_with_their_channels_last_are_turned():
    layout = Layout(((4, 4, 6),))
    rows = torch.randn(2, 1, 4, 4, 6)
    states, _ = layout.states([rows], torch.ones(2, dtype=torch.int64))
    torch.testing.assert_close(states[0], rows[:, 0].flatten(1, 2))


def test_a_vector_stands_at_every_place():
    layout = Layout(((3, 4, 4), (5,)))
    states, _ = layout.states([torch.randn(2, 1, 3, 4, 4), torch.ones(2, 1, 5)], torch.ones(2, dtype=torch.int64))
    assert [own.shape for own in states] == [(2, 16, 5)] * 2
    assert (states[1] == 1).all()


@pytest.mark.parametrize("shapes", [((64, 8), (16, 16)), ((17, 8), (3, 4, 4))])
def test_lists_that_do_not_match_are_refused(shapes):
    with pytest.raises(UsageError, match="cannot be read beside each other; choose others with --cut"):
        Layout(shapes)
