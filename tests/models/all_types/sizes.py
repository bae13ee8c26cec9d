"""A tiny config of any type: sizes by the names of a config's fields, and a short table where fields constrain others.

Every number that a length is compared with (windows, chunks, landmarks, positions of the first training) is below
LONGEST, so that the texts of the check lie on both sides of it.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import transformers
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

TEXT_TYPES = tuple(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
IMAGE_TYPES = tuple(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)

ALL_TYPES = (*(("text", kind) for kind in TEXT_TYPES), *(("image", kind) for kind in IMAGE_TYPES))
"""Modality and type; one type may be of both."""

LABELS = ("red", "green", "blue")
LONGEST = 64
"""Tokens of the longest text."""

PLACES = 80
"""Positions that a model has: more than LONGEST, since some types begin to count after the padding token."""

SIDE = 64
"""Pixels of an image's side."""

Rule = int | Callable[[Any], Any]


def _each(small: int) -> Rule:
    """A number as `small`; of a list as many as it has."""
    return lambda value: [small] * len(value) if isinstance(value, list | tuple) else small


def _growing(value: Any) -> Any:
    """A width that every member of a list has more of, as stages have."""
    return [8 * (2 + place) for place in range(len(value))] if isinstance(value, list | tuple) else 32


def _none(value: Any) -> Any:
    return [0.0] * len(value) if isinstance(value, list | tuple) else type(value)(0)


RULES: tuple[tuple[str, Rule], ...] = (
    # No random numbers in training: a step has one right outcome.
    (r".*(drop|jitter).*", _none),
    (r"vocab_size", 64),
    (r"pad_token_id|pad_index|pad_idx", 0),
    (r"bos_token_id|bos_index|cls_token_id|decoder_start_token_id", 2),
    (r"eos_token_id|eos_index|sep_token_id|forced_eos_token_id", 3),
    (r"max_position_embeddings|n_positions|max_seq_len|num_position_embeddings", PLACES),
    (r"original_max_position_embeddings", 40),
    (r"num_groups", lambda value: min(value, 4)),
    (r"sliding_window|attention_window|keep_window_size|local_attention|window_size|chunk_size|mamba_chunk_size", 8),
    (r"num_hidden_layers|n_layers?|num_layers|(en|de)coder_layers|num_decoder_layers", 4),
    (r"num_key_value_heads", 2),
    (r"num_(attention|cross_attention|self_attention)_heads|n_heads?|num_heads|(en|de)coder_attention_heads", _each(4)),
    (r"head_dim|d_kv|d_head|kv_channels|attention_head_size|qk_(rope|nope)_head_dim|v_head_dim|.*_head_dim", 8),
    (r"hidden_size|d_model|n_embd|dim|emb_dim|embedding_size|projection_dim|hidden_sizes|embed_dims?", _growing),
    (r"(.*_)?intermediate_size|ffn_dim|.*_ffn_dim|d_ff|d_inner|hidden_dim|dff|feed_forward_size", 48),
    (r"(q|kv)_lora_rank|adapter_rank", 16),
    (r"num_experts|num_local_experts|n_routed_experts|moe_num_experts", 4),
    (r"num_experts_per_tok|moe_topk", 2),
    (r"n_shared_experts|n_group|topk_group", 1),
    (r"depths|num_block_repeats|stage_num_blocks|layers_per_stage", _each(2)),
    (r"image_size", lambda value: [SIDE, SIDE] if isinstance(value, list | tuple) else SIDE),
)
"""A field whose whole name fits takes the value; the first that fits has it."""

VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": SIDE,
    "patch_size": 16,
}
BLOCKS = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": PLACES,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
FOUR = {"num_key_value_heads": 4}
HEADS = {"head_dim": 8}
OVERRIDES: Mapping[str, Mapping[str, Any]] = {
    "axk1": FOUR,
    "axk2": FOUR,
    "cohere_compass_text": {
        "head_dim": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
        },
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "deepseek_v3": FOUR | {"first_k_dense_replace": 1},
    "donut-swin": {"window_size": 2, "embed_dim": 16},
    "efficientnet": {
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "in_channels": [32, 8, 16],
        "out_channels": [8, 16, 16],
        "kernel_sizes": [3, 3, 5],
        "strides": [1, 2, 2],
        "num_block_repeats": [1, 2, 1],
        "expand_ratios": [1, 3, 3],
        "hidden_dim": 1280,
    },
    "esm": {"vocab_size": 64, "pad_token_id": 0, "mask_token_id": 4},
    "focalnet": {"embed_dim": 16},
    "funnel": {"block_sizes": [2, 2]},
    "gemma3": {"vision_config": VISION, "mm_tokens_per_image": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "gptj": {"rotary_dim": 8},
    "hgnet_v2": {
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 16, 16, 24],
        "stage_mid_channels": [8, 8, 8, 8],
        "stage_out_channels": [16, 16, 24, 32],
        "hidden_sizes": [16, 16, 24, 32],
        "stage_numb_of_layers": [2, 2, 2, 2],
    },
    "hiera": {"embed_dim": 16, "num_heads": [1, 2, 4, 8]},
    "hunyuan_v1_dense": HEADS,
    "hunyuan_v1_moe": HEADS,
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8},
    "levit": {
        "hidden_sizes": [16, 24, 32],
        "num_attention_heads": [2, 2, 2],
        "key_dim": [8, 8, 8],
        "depths": [2, 2, 2],
    },
    "lilt": {"hidden_size": 48, "channel_shrink_ratio": 4},
    "luke": {"entity_vocab_size": 16, "entity_emb_size": 16},
    "markuplm": {"max_xpath_tag_unit_embeddings": 220, "max_xpath_subs_unit_embeddings": 1008, "max_depth": 4},
    "minicpm3": FOUR,
    "ministral": HEADS,
    "mistral4": FOUR,
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {"depth_multiplier": 0.25},
    "mobilevit": {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 8, 16, 16, 24, 32]},
    "mobilevitv2": {"base_attn_unit_dims": [16, 24, 32], "width_multiplier": 0.25},
    "modernvbert": {"vision_config": VISION, "text_config": BLOCKS},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "perceiver": {
        "num_latents": 8,
        "d_latents": 32,
        "num_self_attends_per_block": 4,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 1,
    },
    "pvt": {"num_labels": len(LABELS)},
    "reformer": {
        "attn_layers": ["local", "lsh", "local", "lsh"],
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [16, 16],
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "num_buckets": 4,
        "hash_seed": 0,
        "max_position_embeddings": LONGEST,
    },
    "roc_bert": {
        "shape_vocab_size": 16,
        "pronunciation_vocab_size": 16,
        "shape_embed_dim": 8,
        "pronunciation_embed_dim": 8,
    },
    "shieldgemma2": {
        "vision_config": {"model_type": "siglip_vision_model", **VISION},
        "text_config": {"model_type": "gemma3_text", "vocab_size": 64, "num_key_value_heads": 2, **BLOCKS},
        "mm_tokens_per_image": 4,
        "yes_token_index": 5,
        "no_token_index": 6,
        "image_token_index": 7,
        "boi_token_index": 8,
        "eoi_token_index": 9,
    },
    "swin": {"window_size": 2, "embed_dim": 16},
    "swinv2": {"embed_dim": 16},
    "t5": {"decoder_start_token_id": 0},
    "t5gemma2": {"encoder": {"vision_config": VISION}},
    "textnet": {"stem_out_channels": 16},
    "timm_wrapper": {"architecture": "resnet18", "model_args": {"layers": [1, 1, 2, 1], "channels": [8, 16, 24, 32]}},
    "ultravbert": {"vision_config": VISION, "text_config": BLOCKS},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "num_key_value_heads": 4},
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "n_mamba_heads": 8,
        "mamba_d_state": 8,
        "num_mem_blocks": 1,
    },
}
"""Fields of some types that constrain each other, or whose sizes no general name tells."""


def tiny_config(kind: str, **more: Any) -> transformers.PreTrainedConfig:
    """A small config of a type, with three labels. Raises whatever transformers has against it."""
    fields = _merged(_small(transformers.CONFIG_MAPPING[kind]), {**OVERRIDES.get(kind, {}), **more})
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: number for number, name in enumerate(LABELS)}}
    config = transformers.AutoConfig.for_model(kind, **fields, **names)
    if isinstance(several := MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.get(kind), tuple):
        config.architectures = [several[0]]
    return config


def _merged(fields: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    both = {name for name in fields.keys() & others.keys() if isinstance(fields[name], Mapping)}
    return {**fields, **others, **{name: _merged(fields[name], others[name]) for name in both}}


def _small(config: Any) -> dict[str, Any]:
    """The fields of a config's class that have a rule, and those of the configs inside it."""
    found = {}
    for field in dataclasses.fields(config):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        rule = next((rule for names, rule in RULES if re.fullmatch(names, field.name)), None)
        if rule is None or isinstance(default, bool) or not isinstance(default, int | float | list | tuple):
            continue
        found[field.name] = rule(default) if callable(rule) else rule
    for name, inner in (getattr(config, "sub_configs", None) or {}).items():
        if dataclasses.is_dataclass(inner):
            found[name] = _small(inner)
    return found
