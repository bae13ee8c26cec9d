"""Pretrained models as a trunk, which is frozen and run once, and a head, which trains from the trunk's rows."""

from recycle_cli.models.cuts import STATE_0, asks_for_several, each_cut, resolve_cut
from recycle_cli.models.layers import Layer, bytes_per_sample
from recycle_cli.models.modalities import MODALITIES, Modality
from recycle_cli.models.named_model import NamedModel
from recycle_cli.models.network import BASE, AnyLoaded, Network
from recycle_cli.models.preprocessor import Inputs, OpenPreprocessor, Prepared, Preprocessor, TextPreprocessor
from recycle_cli.models.split_model import SplitModel
from recycle_cli.models.task_layer import OWN, VECTORS, TaskLayer
from recycle_cli.models.text.embedder import TextEmbedder, settle_embedding
from recycle_cli.models.text.layers import layers
from recycle_cli.models.text.load import Loaded, load
from recycle_cli.models.text.pooled import Pooled
from recycle_cli.models.text.pooled_head import LoadedPooled
from recycle_cli.models.text.reuse import LoadedReusing
from recycle_cli.models.text.spans import Piece, Spans
from recycle_cli.models.text.split import split
from recycle_cli.models.text.tokens import default_max_length
from recycle_cli.models.vision.sources import LoadedImages
from recycle_cli.models.vision.views import names_of_views, views_of

__all__ = [
    "BASE",
    "MODALITIES",
    "OWN",
    "STATE_0",
    "VECTORS",
    "AnyLoaded",
    "Inputs",
    "Layer",
    "Loaded",
    "LoadedImages",
    "LoadedPooled",
    "LoadedReusing",
    "Modality",
    "NamedModel",
    "Network",
    "OpenPreprocessor",
    "Piece",
    "Pooled",
    "Prepared",
    "Preprocessor",
    "Spans",
    "SplitModel",
    "TaskLayer",
    "TextEmbedder",
    "TextPreprocessor",
    "asks_for_several",
    "bytes_per_sample",
    "default_max_length",
    "each_cut",
    "layers",
    "load",
    "names_of_views",
    "resolve_cut",
    "settle_embedding",
    "split",
    "views_of",
]
