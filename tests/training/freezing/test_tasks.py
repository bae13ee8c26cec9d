"""Every task of texts freezes in place and from kept rows with the same losses."""

from pathlib import Path

import numpy as np
import pytest

from recycle_cli.settings import (
    ClassificationSettings,
    CorpusSettings,
    EmbeddingSettings,
    FreezeSettings,
    HeadLayerSettings,
    ModelSettings,
    PairSettings,
    QuestionAnsweringSettings,
    RegressionSettings,
    SimilaritySettings,
    TokenSettings,
)
from tests.conftest import save_tiny, tiny_config
from tests.training.freezing.conftest import IN_PLACE, SETTINGS, STILL, Tried

pytestmark = pytest.mark.long

DATA = Path(__file__).parents[3] / "sample_data"
TASKS = {
    "regression": ("ratings-{}.csv", {"label_column": "stars"}, RegressionSettings()),
    "question-answering": ("questions-{}.json", {}, QuestionAnsweringSettings()),
    "pair-similarity": ("pairs-{}.csv", {}, PairSettings()),
    "token-classification": ("entities-{}.conll", {}, TokenSettings()),
    "similarity": ("{}.csv", {}, SimilaritySettings(group_samples=2, embedding=EmbeddingSettings("linear", 16))),
    "text-classification": ("{}.csv", {}, ClassificationSettings(layers=HeadLayerSettings("mlp"))),
}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_learns_from_kept_rows_what_it_learns_in_place(task, tmp_path):
    name, columns, settings = TASKS[task]
    model = save_tiny(tmp_path / "model", tiny_config(num_hidden_layers=2, **STILL), bare=True)
    train, test = (
        CorpusSettings((str(DATA / name.format(kind)),), limit=limit, **columns)
        for kind, limit in (("train", 60), ("test", 20))
    )
    tried = Tried(tmp_path, ModelSettings(str(model), None, 48), train, test, task, SETTINGS)
    tried.fit("in-place", IN_PLACE, task=settings)
    kept = tried.fit("kept", FreezeSettings("bound", cache="always", dtype="float32"), task=settings)
    assert len(kept.freezing["moves"]) >= 1
    assert len(set(tried.losses("kept"))) > 1
    np.testing.assert_allclose(tried.losses("kept"), tried.losses("in-place"), rtol=1e-5, atol=1e-5)
