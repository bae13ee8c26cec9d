"""Similarity from groups of images to a RUN: from stored views as with the trunk in place, and the whole model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file

from recycle_cli.settings import (
    CorpusSettings,
    ImageSettings,
    ModelSettings,
    PrecomputeSettings,
    SimilaritySettings,
    TrainingSettings,
    ViewSettings,
)
from recycle_cli.verbs.finetune import Job, finetune
from recycle_cli.verbs.precompute import precompute
from tests.tasks.corpora import shapes
from tests.tasks.results import score, vectors
from tests.trainings import losses

SETTINGS = TrainingSettings(epochs=2, batch_size=12, learning_rate=1e-3, task=SimilaritySettings(group_samples=3))
IMAGES = ModelSettings("resnet18", device="cpu", images=ImageSettings("none", (32,), (32,), head_batchnorm="eval"))
IMAGES_STORED = replace(IMAGES, images=replace(IMAGES.images, head_batchnorm="train"))
"""How a store is filled says nothing of the head."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return shapes(tmp_path_factory.mktemp("shapes"))


def image_job(folders, output, **options):
    fields = {"task": "similarity", "tensorboard": False, "model_named": True, **options}
    data, evaluation = (CorpusSettings((str(folders / name),)) for name in ("train", "val"))
    return Job(data, str(output), evaluation=evaluation, **fields)


def test_images_learn_an_embedding_from_stored_views_as_with_the_trunk_in_place(folders, tmp_path):
    views = ViewSettings(2, "random-crop,flip")
    filling = PrecomputeSettings(("layer3",), "float32", views=views)
    store = str(tmp_path / "store")
    precompute(CorpusSettings((str(folders / "train"),)), store, IMAGES_STORED, filling)
    precompute(CorpusSettings((str(folders / "val"),)), store, IMAGES_STORED, replace(filling, views=ViewSettings()))
    settings = replace(SETTINGS, views=views)
    found = finetune(image_job(folders, tmp_path / "stored", store=store), IMAGES, settings)
    finetune(image_job(folders, tmp_path / "inplace", cut="layer3"), IMAGES, settings)
    np.testing.assert_allclose(losses(tmp_path / "stored"), losses(tmp_path / "inplace"), rtol=0, atol=1e-3)
    plain = torchvision.models.resnet18(num_classes=512)
    plain.load_state_dict(load_file(tmp_path / "stored" / "model.safetensors"), strict=True)
    for name, place in (("hits", store), ("whole", None)):
        done = score(CorpusSettings((str(folders / "val"),)), tmp_path / "stored", tmp_path / f"{name}.parquet", place)
        assert done.metrics == pytest.approx(found.metrics, abs=1e-6)
    ours = torch.from_numpy(vectors(tmp_path / "hits.parquet"))
    assert ours.shape == (18, 512)
    np.testing.assert_allclose(ours, vectors(tmp_path / "whole.parquet"), atol=1e-4)


def test_the_whole_model_learns_an_embedding(folders, tmp_path):
    found = finetune(image_job(folders, tmp_path / "run", cut="0"), IMAGES_STORED, replace(SETTINGS, epochs=1))
    done = score(CorpusSettings((str(folders / "val"),)), tmp_path / "run", tmp_path / "p.jsonl")
    assert done.metrics == pytest.approx(found.metrics, abs=1e-6)
