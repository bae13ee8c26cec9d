"""A pooled head over the states of image models: vectors of maps and of lists of patches, stored and in place."""

import pytest

from recycle_cli.errors import UsageError
from recycle_cli.settings import (
    ClassificationSettings,
    CorpusSettings,
    HeadLayerSettings,
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

POOLED = TrainingSettings(task=ClassificationSettings(layers=HeadLayerSettings("pooled")))


@pytest.mark.parametrize(
    ("family", "poolings", "refused", "said"),
    [
        ("resnet", ("mean", "max"), ("cls",), "--pool cls: an image's map has no such place; take some of mean, max"),
        pytest.param(
            "vit", ("mean", "cls", "max"), ("last",), "--pool last: an image's map has no such", marks=pytest.mark.long
        ),
    ],
)
def test_maps_are_pooled_over_their_places(family, poolings, refused, said, tmp_path):
    shapes = images_of(tmp_path / "shapes")
    (tmp_path / "model").mkdir()
    model, store = saved(tmp_path / "model", family), str(tmp_path / "store")
    train, val = (CorpusSettings((str(shapes / name),)) for name in ("train", "val"))
    with pytest.raises(UsageError, match=said):
        precompute(train, str(tmp_path / "none"), model, PrecomputeSettings(("every",), pool=refused))
    for corpus in (train, val):
        precompute(corpus, store, model, PrecomputeSettings(("every",), "float32", pool=poolings))
    held = Store.open(store)
    assert all(len(held.row_shape(cut)) == 1 for cut in held.recipe.cuts)
    assert held.rows == len(poolings) * len(held)
    job = Job(train, str(tmp_path / "run"), store, val, task="image-classification", tensorboard=False)
    report = finetune(job, ModelSettings(device="cpu"), POOLED)
    assert report.cut == ",".join(held.recipe.cuts)
    for where in (store, None):
        found = predict(
            val, str(tmp_path / "run"), where, str(tmp_path / "p.csv"), ModelSettings(device="cpu"), PredictSettings()
        )
        assert found.metrics == pytest.approx(report.metrics, abs=1e-3)
        assert (found.hits > 0) == (where is not None)
