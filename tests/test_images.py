"""Images from one end to the other: folders to store to RUN to predictions, through the functions that text uses."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

from recycle_cli.batches.mixing import mixed
from recycle_cli.errors import DataError, MismatchError, MissingError, UsageError
from recycle_cli.settings import (
    CorpusSettings,
    ImageSettings,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    TrainingSettings,
    ViewSettings,
)
from recycle_cli.store import Store, verify
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.tasks.corpora import shapes as images_of
from tests.trainings import losses

MODEL = ModelSettings("shufflenet_v2_x0_5", device="cpu", images=ImageSettings("none", resize=(32,), crop=(32,)))
STILL = ModelSettings(device="cpu", images=ImageSettings(head_batchnorm="eval"))
IN_PLACE = replace(MODEL, images=replace(MODEL.images, head_batchnorm="eval"))
"""BatchNorm over a few values a channel blows rounding up from step to step; standing still, it leaves it as it is."""

TWO_VIEWS = ViewSettings(2, "random-crop,flip")
FILL = PrecomputeSettings(("stage3",), "float32")
TRAIN = TrainingSettings(epochs=2, batch_size=16, learning_rate=1e-3, seed=3)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Twelve training images of each class and six to evaluate on."""
    return images_of(tmp_path_factory.mktemp("shapes"))


def fill(source, store, model=MODEL, **options):
    return precompute(CorpusSettings((str(source),)), str(store), model, replace(FILL, **options))


@pytest.fixture(scope="module")
def store(shapes, tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "store"
    fill(shapes / "train", path, views=TWO_VIEWS)
    fill(shapes / "val", path)
    return path


@pytest.fixture(scope="module")
def plain(shapes, store, tmp_path_factory):
    """A RUN that was trained from the store without its views, and its report."""
    output = tmp_path_factory.mktemp("runs") / "plain"
    return output, finetune(job(shapes, output, store), STILL, TRAIN)


def job(shapes, output, store=None, **options):
    fields = {"task": "image-classification", "tensorboard": False, **options}
    data, evaluation = (CorpusSettings((str(shapes / name),)) for name in ("train", "val"))
    return Job(data, str(output), store=None if store is None else str(store), evaluation=evaluation, **fields)


def test_a_second_precompute_computes_nothing(shapes, tmp_path):
    first = fill(shapes / "val", tmp_path / "store")
    assert (first.samples, first.new_samples, first.rows) == (18, 18, 18)
    second = fill(shapes / "val", tmp_path / "store")
    assert (second.new_samples, second.reused_samples) == (0, 18)
    more = fill(shapes / "val", tmp_path / "store", views=TWO_VIEWS)
    assert (more.samples, more.new_samples) == (54, 36)


def test_maps_of_four_bits_are_trained_with_and_predicted_as_misses_are(shapes, tmp_path):
    for name in ("train", "val"):
        fill(shapes / name, tmp_path / "acts", views=TWO_VIEWS if name == "train" else ViewSettings(), dtype="int4")
    store = Store.open(str(tmp_path / "acts"))
    assert len(store.row_shape("stage3")) == 3
    assert verify(store.path)["damaged"] == []
    settings = replace(TRAIN, views=TWO_VIEWS, mixup=0.2, cutmix=1.0, in_memory=True)
    trained = finetune(job(shapes, tmp_path / "run", store.path), STILL, settings)
    assert trained.store_hit_share == 1.0
    val = CorpusSettings((str(shapes / "val"),))
    outputs = []
    for name, source in (("hits", store.path), ("misses", str(tmp_path / "none"))):
        fill(shapes / "train", source, dtype="int4")
        scored = predict(val, str(tmp_path / "run"), source, str(tmp_path / f"{name}.csv"), STILL, PredictSettings())
        assert (scored.hits, scored.misses) == ((18, 0) if name == "hits" else (0, 18))
        outputs.append(scored.metrics)
    assert outputs[0] == pytest.approx(outputs[1], abs=1e-6)


def test_training_from_the_store_follows_training_with_the_trunk_in_place(shapes, plain, tmp_path):
    run, stored = plain
    in_place = finetune(job(shapes, tmp_path / "in-place", cut="stage3", model_named=True), IN_PLACE, TRAIN)
    assert stored.cut == in_place.cut == "stage3"
    assert losses(run) == pytest.approx(losses(tmp_path / "in-place"), rel=1e-4)
    assert stored.metrics == pytest.approx(in_place.metrics, abs=1e-4)


def test_stored_views_are_those_of_augmentation_without_a_store(shapes, store, plain, tmp_path):
    settings = replace(TRAIN, views=TWO_VIEWS)
    finetune(job(shapes, tmp_path / "stored", store), STILL, settings)
    finetune(job(shapes, tmp_path / "online", cut="stage3", model_named=True), IN_PLACE, settings)
    assert losses(tmp_path / "stored") == pytest.approx(losses(tmp_path / "online"), rel=1e-6)
    assert losses(tmp_path / "stored") != pytest.approx(losses(plain[0]), rel=1e-6)


def test_a_run_is_the_whole_torchvision_model(shapes, store, tmp_path):
    found = finetune(job(shapes, tmp_path / "run", store), ModelSettings(device="cpu"), TRAIN)
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
    model.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"), strict=True)
    assert json.loads((tmp_path / "run" / "torchvision.json").read_text())["labels"] == found.classes
    assert "torchvision.models.shufflenet_v2_x0_5" in (tmp_path / "run" / "README.md").read_text()
    val = CorpusSettings((str(shapes / "val"),))
    reports = {}
    for name, place in (("hits", str(store)), ("whole", None)):
        output = str(tmp_path / f"{name}.csv")
        reports[name] = predict(
            val, str(tmp_path / "run"), place, output, ModelSettings(device="cpu"), PredictSettings()
        )
    assert (reports["hits"].hits, reports["whole"].hits) == (18, 0)
    assert reports["hits"].metrics == pytest.approx(found.metrics, abs=1e-4)
    assert reports["whole"].metrics == pytest.approx(found.metrics, abs=1e-4)
    with (tmp_path / "whole.csv").open() as lines:
        assert "circle/00.png" in lines.readlines()[1]


def test_the_statistics_of_the_best_epoch_come_back_with_its_weights(shapes, store, tmp_path):
    settings = replace(TRAIN, epochs=4, learning_rate=3e-2, metric="loss")
    found = finetune(job(shapes, tmp_path / "run", store), ModelSettings(device="cpu"), settings)
    val = CorpusSettings((str(shapes / "val"),))
    again = predict(
        val, str(tmp_path / "run"), str(store), str(tmp_path / "p.csv"), ModelSettings(device="cpu"), PredictSettings()
    )
    assert again.metrics == pytest.approx(found.metrics, abs=1e-4)


def test_the_whole_model_trains_without_a_store(shapes, tmp_path):
    found = finetune(job(shapes, tmp_path / "run", cut="0", model_named=True), MODEL, replace(TRAIN, epochs=1))
    assert found.cut == "0"
    done = predict(
        CorpusSettings((str(shapes / "val"),)),
        str(tmp_path / "run"),
        None,
        str(tmp_path / "p.csv"),
        ModelSettings(device="cpu"),
        PredictSettings(),
    )
    assert done.metrics == pytest.approx(found.metrics, abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        *(pytest.param(one, marks=pytest.mark.long) for one in ({"mixup": 0.4}, {"cutmix": 1.0})),
        {"mixup": 0.2, "cutmix": 1.0},
    ],
)
def test_rows_can_be_mixed(shapes, store, tmp_path, options):
    settings = replace(TRAIN, **options)
    finetune(job(shapes, tmp_path / "one", store), ModelSettings(device="cpu"), settings)
    finetune(job(shapes, tmp_path / "same", store), ModelSettings(device="cpu"), settings)
    assert losses(tmp_path / "one") == losses(tmp_path / "same")
    assert np.isfinite(losses(tmp_path / "one")).all()


def test_a_mixture_is_what_it_says():
    torch.manual_seed(0)
    rows = torch.arange(4.0).reshape(4, 1, 1, 1, 1).expand(4, 1, 2, 8, 8).contiguous()
    blend, mix = mixed(rows, mixup=1.0, cutmix=0.0)
    assert torch.allclose(blend, mix.share * rows + (1 - mix.share) * rows[mix.partners])
    boxed, mix = mixed(rows, mixup=0.0, cutmix=1.0)
    for own, partner, mixture in zip(rows, rows[mix.partners], boxed, strict=True):
        assert ((mixture == own) | (mixture == partner)).all()
        if own.mean() != partner.mean():
            assert float((mixture == own).float().mean()) == pytest.approx(mix.share)
    assert mixed(rows, mixup=0.0, cutmix=0.0) == (rows, None)
    with pytest.raises(DataError, match="--mixup"):
        mixed(torch.zeros(2, 1, 5), mixup=0.0, cutmix=1.0)


def test_a_batch_of_one_image_joins_the_one_before_it(shapes, store, tmp_path):
    # 36 images in batches of 7: the last has one, on which BatchNorm cannot train.
    finetune(job(shapes, tmp_path / "run", store), ModelSettings(device="cpu"), replace(TRAIN, batch_size=7, epochs=1))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"resize": (40,)}, "preprocessor"),
        ({"mean": (0.0, 0.0, 0.0)}, "preprocessor"),
    ],
)
def test_another_transform_is_another_store(shapes, store, change, field):
    with pytest.raises(MismatchError, match=field):
        fill(shapes / "val", store, replace(MODEL, images=replace(MODEL.images, **change)))


def test_missing_images_and_views_are_told(shapes, tmp_path):
    fill(shapes / "train", tmp_path / "store")
    with pytest.raises(MissingError, match=r"lacks 18 of 18.*--weights none.*--crop 32,32"):
        finetune(job(shapes, tmp_path / "run", tmp_path / "store"), ModelSettings(device="cpu"), TRAIN)
    settings = replace(TRAIN, views=TWO_VIEWS)
    with pytest.raises(MissingError, match=r"lacks 36 of 36.*--views 2 --augment"):
        finetune(job(shapes, tmp_path / "run", tmp_path / "store"), ModelSettings(device="cpu"), settings)
    done = finetune(
        job(shapes, tmp_path / "run", tmp_path / "store"),
        ModelSettings(device="cpu"),
        replace(settings, on_missing="compute"),
    )
    assert done.samples == 36
    assert len(Store.open(str(tmp_path / "store"))) == 3 * 36 + 18


def test_bad_images_are_refused_or_listed(shapes, tmp_path):
    shutil.copytree(shapes / "val", tmp_path / "val")
    (tmp_path / "val" / "circle" / "text.png").write_text("this is not an image")
    whole = (tmp_path / "val" / "square" / "00.png").read_bytes()
    (tmp_path / "val" / "square" / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (1, 1)).save(tmp_path / "val" / "triangle" / "dot.png")
    with pytest.raises(DataError, match=r"image circle/text\.png: .*--on-error skip"):
        fill(tmp_path / "val", tmp_path / "refused")
    corpus = CorpusSettings((str(tmp_path / "val"),), on_error="skip", failures=str(tmp_path / "failed.jsonl"))
    done = precompute(corpus, str(tmp_path / "store"), MODEL, replace(FILL, views=TWO_VIEWS))
    assert (done.new_samples, done.failed_samples) == (54, 3)
    failed = [json.loads(line)["id"] for line in (tmp_path / "failed.jsonl").read_text().splitlines()]
    assert sorted(failed) == ["circle/text.png", "square/cut.png", "triangle/dot.png"]
    (tmp_path / "val" / "circle" / "again.png").write_text("this is not an image")
    (tmp_path / "val" / "triangle" / "again.png").write_text("this is not an image")
    done = precompute(corpus, str(tmp_path / "again"), MODEL, replace(FILL, views=TWO_VIEWS, window=4))
    assert (done.new_samples, done.reused_samples, done.failed_samples) == (54, 0, 5)
    failed = [json.loads(line)["reason"] for line in (tmp_path / "failed.jsonl").read_text().splitlines()]
    assert sum("again.png: the file is not an image" in reason for reason in failed) == 2
    (tmp_path / "val" / "circle" / "again.png").unlink()
    (tmp_path / "val" / "triangle" / "again.png").unlink()

    data = replace(job(shapes, tmp_path / "run"), data=replace(corpus, failures=None), cut="stage4", model_named=True)
    trained = finetune(data, MODEL, replace(TRAIN, epochs=1))
    assert trained.samples == 18
    scored = predict(
        corpus, str(tmp_path / "run"), None, str(tmp_path / "p.csv"), ModelSettings(device="cpu"), PredictSettings()
    )
    assert (scored.samples, scored.failed_samples) == (18, 3)
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 19


def test_what_cannot_go_together_is_refused(shapes, store, tmp_path):
    text = job(shapes, tmp_path / "run", store, task="text-classification")
    with pytest.raises(UsageError, match="takes images; use --task image-classification"):
        finetune(text, ModelSettings(device="cpu"), TRAIN)
    with pytest.raises(UsageError, match="give a STORE"):
        finetune(job(shapes, tmp_path / "run", cut="0", model_named=True), MODEL, replace(TRAIN, mixup=0.2))
    with pytest.raises(UsageError, match="no known transform"):
        fill(shapes / "val", tmp_path / "s", views=ViewSettings(1, "swirl"))
    with pytest.raises(UsageError, match=r"2 tensors cross there.*layer2 and layer3\.0"):
        fill(shapes / "val", tmp_path / "s", replace(MODEL, name="resnet18"), cuts=("layer3.0.conv1",))
    with pytest.raises(UsageError, match="--cut 0: ShuffleNetV2 has no cut before its first block"):
        fill(shapes / "val", tmp_path / "s", cuts=("0",))
    assert not (tmp_path / "s").exists()


def test_a_transformers_model_goes_the_same_way(shapes, tmp_path):
    import transformers

    from tests.models.vision.test_transformers import saved

    (tmp_path / "model").mkdir()
    model = saved(tmp_path / "model", "swin")
    fill(shapes / "train", tmp_path / "store", model, cuts=("50%",))
    fill(shapes / "val", tmp_path / "store", model, cuts=("50%",))
    found = finetune(job(shapes, tmp_path / "run", tmp_path / "store"), ModelSettings(device="cpu"), TRAIN)
    assert transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "run").config.num_labels == 3
    val = CorpusSettings((str(shapes / "val"),))
    for place in (str(tmp_path / "store"), None):
        done = predict(
            val, str(tmp_path / "run"), place, str(tmp_path / "p.csv"), ModelSettings(device="cpu"), PredictSettings()
        )
        assert done.metrics == pytest.approx(found.metrics, abs=1e-4)
