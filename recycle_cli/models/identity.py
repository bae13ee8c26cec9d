"""The identity of a trunk: digests of its weights and of its tokenizer, and the fields of its config that compute."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import xxhash
from torch import Tensor

from recycle_cli.models.hub import quiet
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
"""Config fields that name, train, generate or classify in the models that are known; each model of transformers is
asked whether they decide nothing in it (`fields.py`)."""


def architecture_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config that decide what a trunk in eval computes; unset fields and dropout rates left out."""
    kept = {
        name: architecture_of(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in _NO_PART and not _is_dropout(name, value)
    }
    return plain(kept)


def plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are set, as JSON has them."""
    read: dict[str, Any] = json.loads(json.dumps(fields, default=str))
    return {name: value for name, value in read.items() if value is not None and value != {}}


def _is_dropout(name: str, value: Any) -> bool:
    """Whether the field is a rate of dropout, which is none in eval; ESM's `token_dropout` is a way to compute."""
    named = "dropout" in name or "pdrop" in name or "layerdrop" in name
    return named and (value is None or (isinstance(value, int | float) and value is not True))


def weights_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """xxh3_128, 32 hexadecimal digits, of the tensors' names, dtypes, shapes and bytes; their order has no part."""
    return canonical_digest({name: [str(t.dtype), list(t.shape), _bytes_digest(t)] for name, t in tensors})


def tokenizer_digest(tokenizer: Any, inputs: Iterable[str]) -> str:
    """xxh3_128, 32 hexadecimal digits, of the vocabulary, rules, special tokens and names of the inputs, and of what
    the tokenizer does with texts if those do not say it."""
    with quiet():
        behaviour = _behaviour(tokenizer)
    return canonical_digest(
        {
            "rules": _rules(tokenizer),
            "special": _special(tokenizer),
            "inputs": sorted(inputs),
            **({} if behaviour is None else {"behaviour": behaviour}),
        }
    )


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


def _behaviour(tokenizer: Any) -> str | None:
    """What the tokenizer makes of a few texts, unless its rules alone make the same of them (None).

    So truncation on the left, special tokens split in a text and the like are seen, by whatever name they go.
    """
    texts = _probes(tokenizer)
    found = [_encoded(tokenizer, texts, length) for length in _PROBE_LENGTHS]
    if tokenizer.is_fast:
        alone = [_by_rules(tokenizer.backend_tokenizer, texts, length) for length in _PROBE_LENGTHS]
        by_rules = [{name: rules.get(name) for name in mine} for mine, rules in zip(found, alone, strict=True)]
        return None if found == by_rules else canonical_digest({"found": found})
    files = _files(tokenizer)
    said = None if files else _of_class_alone(tokenizer, texts)
    return None if found == said else canonical_digest({"found": found, "files": files})


_PROBE_LENGTHS = (16, 100_000)
"""Tokens that the probes are cut to: most of them, and none."""


def _probes(tokenizer: Any) -> list[tuple[str, str | None]]:
    """Texts and a pair: long ones, with tokens of the vocabulary, special tokens, and odd characters."""
    vocabulary = tokenizer.get_vocab()
    known = " ".join(sorted(vocabulary, key=lambda token: (vocabulary[token], token))[:200])
    special = " ".join(map(str, tokenizer.all_special_tokens))
    texts = [
        "a",
        "",
        known,
        known.upper(),
        f"a{special}b {special} c",
        "  The QUICK\tbrown fox\n\njumps   over 12,345.67 lazy dogs... don't stop@home #now https://example.org/x?y=1 ",
        "Ca\u0301fe\u0301 Caf\u00e9 \u00dfTRASSE \u0130i \ufb01 \u00bd \uff21\uff22 \u65e5\u672c\u8a9e "
        "\ud55c\uad6d\uc5b4 \u0e44\u0e17\u0e22 \u0627\u0644 \U0001f642\u200d\U0001f525"
        " \u200b\u00a0\u202e\u00ad\ufeff \x00\x07\ufffd",
        "one two three four five six seven eight nine ten " * 8,
    ]
    return [*((text, None) for text in texts), (texts[5], texts[7]), (texts[7], texts[5])]


def _encoded(tokenizer: Any, texts: list[tuple[str, str | None]], length: int) -> dict[str, list[Any]]:
    """By name, the inputs of each text, as a training has them; None for a text that the tokenizer refuses."""
    each = [_encoded_one(tokenizer, text, pair, length) for text, pair in texts]
    names = dict.fromkeys(name for one in each for name in one)
    return {name: [one.get(name) for one in each] for name in names}


def _encoded_one(tokenizer: Any, text: str, pair: str | None, length: int) -> dict[str, list[Any]]:
    options = {"truncation": True, "max_length": length, "padding": False, "return_attention_mask": False}
    try:
        encoded = tokenizer([text], None if pair is None else [pair], verbose=False, **options)
    except MemoryError:
        raise  # else the digest would be another one
    except Exception:  # noqa: BLE001 - Tapas takes no question longer than the limit, and any code may raise anything
        return {}
    return {name: [*map(_number, encoded[name][0])] for name in encoded}


def _number(value: Any) -> Any:
    return [*map(_number, value)] if isinstance(value, list | tuple) else int(value)


def _by_rules(rules: Any, texts: list[tuple[str, str | None]], length: int) -> dict[str, list[Any]]:
    """The same by the rules of a fast tokenizer; its next call sets the rules' truncation and padding again."""
    rules.no_padding()
    rules.enable_truncation(length)
    rules.encode_special_tokens = False
    each = [rules.encode(text, pair) for text, pair in texts]
    return {"input_ids": [one.ids for one in each], "token_type_ids": [one.type_ids for one in each]}


def _of_class_alone(tokenizer: Any, texts: list[tuple[str, str | None]]) -> list[dict[str, list[Any]]] | None:
    """The same by a slow tokenizer of this class without settings; None if there is no such thing."""
    try:
        bare = type(tokenizer)()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a class that wants files raises whatever it likes
        return None
    return [_encoded(bare, texts, length) for length in _PROBE_LENGTHS]


def _files(tokenizer: Any) -> dict[str, str]:
    """Digests of the files in which a slow tokenizer keeps its vocabulary, merges and the like, by name."""
    with TemporaryDirectory() as folder:
        tokenizer.save_vocabulary(folder)
        return {path.name: xxhash.xxh3_128_hexdigest(path.read_bytes()) for path in Path(folder).iterdir()}
