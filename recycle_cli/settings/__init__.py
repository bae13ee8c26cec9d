"""The options of the commands as plain data: what is used together is one class, each default is written once."""

from recycle_cli.settings.config import config_of, words_of
from recycle_cli.settings.corpus import LABEL_SEPARATOR, CorpusSettings, FileSettings
from recycle_cli.settings.engine import EngineSettings
from recycle_cli.settings.freezing import FreezeSettings
from recycle_cli.settings.head_layers import HeadLayerSettings, LadderSettings, PooledSettings
from recycle_cli.settings.measuring import BenchSettings, LayersSettings, PlanSettings
from recycle_cli.settings.model import MINILM, ImageSettings, ModelSettings, ViewSettings
from recycle_cli.settings.option import decisive, same_for_all_heads
from recycle_cli.settings.serve import LimitSettings, ServeSettings
from recycle_cli.settings.shards import Shard, shard_of_torchrun
from recycle_cli.settings.tasks import (
    TASKS,
    ClassificationSettings,
    EmbeddingSettings,
    Metric,
    PairSettings,
    QuestionAnsweringSettings,
    RegressionSettings,
    SampleSettings,
    SimilaritySettings,
    TaskSettings,
    TokenSettings,
    WindowedSettings,
    WindowSettings,
)
from recycle_cli.settings.training import AdapterSettings, HeadSettings, OnMissing, TrainingSettings
from recycle_cli.settings.verbs import Job, PrecomputeSettings, PredictSettings

__all__ = [
    "LABEL_SEPARATOR",
    "MINILM",
    "TASKS",
    "AdapterSettings",
    "BenchSettings",
    "ClassificationSettings",
    "CorpusSettings",
    "EmbeddingSettings",
    "EngineSettings",
    "FileSettings",
    "FreezeSettings",
    "HeadLayerSettings",
    "HeadSettings",
    "ImageSettings",
    "Job",
    "LadderSettings",
    "LayersSettings",
    "LimitSettings",
    "Metric",
    "ModelSettings",
    "OnMissing",
    "PairSettings",
    "PlanSettings",
    "PooledSettings",
    "PrecomputeSettings",
    "PredictSettings",
    "QuestionAnsweringSettings",
    "RegressionSettings",
    "SampleSettings",
    "ServeSettings",
    "Shard",
    "SimilaritySettings",
    "TaskSettings",
    "TokenSettings",
    "TrainingSettings",
    "ViewSettings",
    "WindowSettings",
    "WindowedSettings",
    "config_of",
    "decisive",
    "same_for_all_heads",
    "shard_of_torchrun",
    "words_of",
]
