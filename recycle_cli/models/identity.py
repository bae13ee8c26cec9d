"""The identity of a trunk: digests of its weights and of its tokenizer, and the fields of its config that compute."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import xxhash
from torch import Tensor

from recycle_cli.recipe import canonical_digest, canonical_json

# fmt: off
_NO_PART = frozenset((
    "_name_or_path", "name_or_path", "transformers_version", "model_type_version", "architectures", "auto_map",
    "id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params", "dtype",
    "torch_dtype", "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
    "experts_implementation", "use_cache", "return_dict", "output_attentions", "output_hidden_states",
    "gradient_checkpointing", "chunk_size_feed_forward", "initializer_range", "initializer_factor",
    "initializer_cutoff_factor", "tie_word_embeddings", "tie_encoder_decoder", "is_encoder_decoder",
    "add_cross_attention", "cross_attention_hidden_size", "decoder_start_token_id", "bos_token_id", "eos_token_id",
    "sep_token_id", "prefix", "max_length", "min_length", "do_sample", "early_stopping", "num_beams",
    "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
    "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences",
    "output_scores", "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values",
    "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens", "classifier_activation",
    "classifier_pooling", "classifier_bias", "pooler_hidden_act", "summary_type", "summary_use_proj",
    "summary_activation", "summary_proj_to_labels", "summary_first_dropout", "summary_last_dropout",
))
# fmt: on
"""Config fields that name, train, generate or classify, and so decide nothing about a trunk's rows."""


def architecture_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config that decide what a trunk in eval computes; unset fields and dropout rates left out."""
    kept = {
        name: architecture_of(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in _NO_PART and "dropout" not in name and "pdrop" not in name and "layerdrop" not in name
    }
    plain: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return {name: value for name, value in plain.items() if value is not None and value != {}}


def weights_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """xxh3_128, 32 hexadecimal digits, of the tensors' names, dtypes, shapes and bytes; their order has no part."""
    return canonical_digest({name: [str(t.dtype), list(t.shape), _bytes_digest(t)] for name, t in tensors})


def tokenizer_digest(tokenizer: Any, inputs: Iterable[str]) -> str:
    """xxh3_128, 32 hexadecimal digits, of the vocabulary, rules, special tokens and names of the inputs."""
    return canonical_digest({"rules": _rules(tokenizer), "special": _special(tokenizer), "inputs": sorted(inputs)})


def _bytes_digest(tensor: Tensor) -> str:
    # Of a view, not of a copy: the trunk of a large model is hashed where it lies.
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return xxhash.xxh3_128_hexdigest(flat.numpy().data)


def _rules(tokenizer: Any) -> str:
    if not tokenizer.is_fast:
        return canonical_json({"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()})
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    # Truncation and padding are set anew by every call, and are not the tokenizer's but the caller's.
    return canonical_json({name: value for name, value in rules.items() if name not in ("truncation", "padding")})


def _special(tokenizer: Any) -> dict[str, Any]:
    return {name: str(value) for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
