"""Tiny random models of every architecture that the splitter is proved on; 4 blocks: odd and even cuts differ."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)
from transformers.models.t5.modeling_t5 import T5PreTrainedModel

from recycle_cli.models import Loaded
from tests.conftest import tiny_config, tiny_tokenizer

ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 3}

ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    "xlm-roberta": {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    "camembert": {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    "electra": {"embedding_size": 16},
    "mpnet": {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 2},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "norm_rel_ebd": "layer_norm",
        "position_buckets": 8,
        "conv_kernel_size": 3,
        "conv_act": "gelu",
        "type_vocab_size": 2,
    },
    "distilbert": {"hidden_dim": 48},
    "modernbert": {"layer_types": ["full_attention", "sliding_attention"] * 2, "local_attention": 4},
    "nomic_bert": {},
    "longformer": {"attention_window": 4, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    "ernie": {"use_task_id": True},
    "convbert": {"embedding_size": 16, "head_ratio": 2, "conv_kernel_size": 3},
    "roformer": {"embedding_size": 16},
    "albert": {"embedding_size": 16, "num_hidden_groups": 1},
    "xlnet": {
        **dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"), ...),
        "d_model": 32,
        "n_layer": 4,
        "n_head": 4,
        "d_inner": 48,
        "summary_type": "mean",
    },
    "squeezebert": {"embedding_size": 32},
    "xlm": {"pad_index": 0, "init_std": 0.3, "embed_init_std": 0.3},
    "flaubert": {"pad_index": 0, "init_std": 0.3, "embed_init_std": 0.3},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 4, "num_heads": 4, "is_encoder_decoder": False},
}

DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt_neo": {"num_layers": 4, "num_heads": 4, "attention_types": [[["global", "local"], 2]], "window_size": 3},
    "gpt_neox": {"rotary_pct": 0.5},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": True},
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2, "use_sliding_window": True, **ALTERNATING},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8, "use_sliding_window": True, **ALTERNATING},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8, **ALTERNATING},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 3},
    "phi": {"num_key_value_heads": 2},
}

ALIKE = {
    *("xlm-roberta", "camembert", "deberta", "nomic_bert", "ernie", "electra", "roformer", "squeezebert", "flaubert"),
    *("gpt_neox", "qwen3", "mistral", "phi"),
}
"""Architectures that compute much as another one here does."""


def each_kind(names: Iterable[str]) -> list[Any]:
    """The names as parameters of a test, those that are alike in the long run alone."""
    return [pytest.param(name, marks=pytest.mark.long if name in ALIKE else ()) for name in names]


def random_model(model_type: str, seed: int = 0, **fields: Any) -> Loaded:
    """A random classifier of three labels with the tiny tokenizer, in eval, biases and norms random too."""
    config = tiny_config(model_type, num_labels=3, **((ENCODERS | DECODERS).get(model_type, {}) | fields))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = stirred(PooledT5Encoder(config) if model_type == "t5" else of_config(config))
    return Loaded(model_type, model.eval(), tiny_tokenizer())


TOKENS, SPANS = "AutoModelForTokenClassification", "AutoModelForQuestionAnswering"

PER_ROW = {
    TOKENS: [name for name in [*ENCODERS, *DECODERS] if name in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES],
    SPANS: [
        name
        for name in [*ENCODERS, *DECODERS]
        # T5 answers questions with its decoder; Longformer looks for separators, which rows at a cut do not tell.
        if name in MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES and name not in ("t5", "longformer")
    ],
}
"""The architectures that transformers has a class for with an output for each token."""


def random_per_row(model_type: str, auto: str, seed: int = 0) -> Loaded:
    """A random model with an output for each token: five tags, or start and end."""
    fields = (ENCODERS | DECODERS)[model_type]
    config = tiny_config(model_type, num_labels=5 if auto == TOKENS else 2, **fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = stirred(getattr(transformers, auto).from_config(config))
    return Loaded(model_type, model.eval(), tiny_tokenizer(), auto=auto, per_row=True)


def stirred(model: nn.Module) -> nn.Module:
    """The model with its biases and norms random too."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def of_config(config: Any) -> Any:
    """The classifier that transformers makes of a config."""
    return transformers.AutoModelForSequenceClassification.from_config(config)


class PooledT5Encoder(T5PreTrainedModel):
    """T5's encoder with a mean over tokens and a linear layer: transformers classifies with the whole T5 only."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.transformer = transformers.T5EncoderModel(config)
        self.classifier = nn.Linear(config.d_model, config.num_labels)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor]:
        rows = self.transformer(input_ids=input_ids, attention_mask=attention_mask)[0]
        mask = attention_mask[..., None]
        return (self.classifier((rows * mask).sum(1) / mask.sum(1)),)
