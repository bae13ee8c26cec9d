"""Random checkpoints of any type on disk, as transformers itself saves them, and the samples to try them with."""

import io
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image
from torch import nn

from recycle_cli.keys import Sample
from tests.models.all_types.sizes import LONGEST, SIDE, tiny_config

LETTERS = (*string.ascii_letters, *string.digits[:7])
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""With LETTERS they are the 64 tokens of the tokenizer, and of every model."""

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


AUTO = {"text": "AutoModelForSequenceClassification", "image": "AutoModelForImageClassification"}


def save_checkpoint(modality: str, kind: str, folder: Path) -> None:
    """Write a random classifier of a type, and for texts a tokenizer of one letter a token."""
    torch.manual_seed(0)
    config = tiny_config(kind)
    model = stirred(getattr(transformers, AUTO[modality]).from_config(config))
    if modality == "text":
        tokenizer(has_types(config)).save_pretrained(folder)
    else:
        _settle_statistics(model)
    model.save_pretrained(folder)


def has_types(config: Any) -> bool:
    """Whether a model tells the second text of a pair from the first."""
    return (getattr(config, "type_vocab_size", None) or 0) > 1


def stirred(model: nn.Module) -> nn.Module:
    """The model with weights so large that an error in any of them shows in the outputs."""
    with torch.no_grad():
        for one in model.parameters():
            if not one.is_floating_point():
                continue
            if one.ndim < 2:
                one.add_(0.1 * torch.randn_like(one))
            else:
                # Convolutions are followed by what halves their variance.
                gain, inputs = (1.6, one[0].numel()) if one.ndim > 3 else (1.2, one.shape[-1])
                one.copy_(torch.randn_like(one) * gain / max(inputs, 1) ** 0.5)
    return model


def _settle_statistics(model: nn.Module) -> None:
    """Give BatchNorm layers the statistics of the images: without them the signal of a deep model fades."""
    layers = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    usual = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    if layers:
        with torch.no_grad():
            model.train()(pixel_values=torch.cat([pixels_of(one)["pixel_values"] for one in images()]))
    for layer, momentum in zip(layers, usual, strict=True):
        layer.momentum = momentum


def tokenizer(types: bool) -> transformers.PreTrainedTokenizerFast:
    """A token a letter and no other, so that a text may have a single one; some types open it as their own class, which
    pairs bytes. `types`: the second text of a pair has 1."""
    names = {word: number for number, word in enumerate((*SPECIAL, *LETTERS))}
    rules = tokenizers.Tokenizer(tokenizers.models.BPE(names, [], unk_token="[UNK]"))
    rules.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    rules.post_processor = tokenizers.processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=rules,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", *(["token_type_ids"] if types else []), "attention_mask"],
    )


SHORTEST = {"canine": 4, "funnel": 4}
"""Tokens of the shortest text that the plain model takes, where that is not one."""


def texts(config: Any) -> list[Sample]:
    """Texts of a single token up to LONGEST, on both sides of each whole number in the config; the last is a pair."""
    numbers = {number for number in _numbers(config.to_dict()) if 1 < number < LONGEST}
    shortest = SHORTEST.get(config.model_type, 1)
    around = {shortest, 2, 3, LONGEST, *numbers, *(number + 1 for number in numbers)}
    lengths = sorted(length for length in around if length >= shortest)
    draw = np.random.default_rng(0)
    found = ["".join(draw.choice(LETTERS, length)) for length in draw.permutation(lengths)]
    samples = [Sample(str(number), {"text": text}) for number, text in enumerate(found)]
    pair = {"text": "".join(draw.choice(LETTERS, 9)), "text_pair": "".join(draw.choice(LETTERS, 14))}
    return [*samples, Sample(str(len(samples)), pair)]


def tokens_of(sample: Sample, types: bool) -> dict[str, torch.Tensor]:
    """A text as its letters say, without a tokenizer: what a model takes of it, alone and unpadded."""
    fields = [str(sample.fields[name]) for name in ("text", "text_pair") if name in sample.fields]
    ids = [len(SPECIAL) + LETTERS.index(letter) for text in fields for letter in text]
    second = [number for number, text in enumerate(fields) for _ in text]
    taken = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.int64)}
    return taken | ({"token_type_ids": torch.tensor([second])} if types else {})


def images(count: int = 6) -> list[Sample]:
    """Images of patches and noise, of the size that the models take."""
    draw, found = np.random.default_rng(0), []
    for number in range(count):
        file = io.BytesIO()
        patches = draw.integers(0, 200, (4, 4, 3)).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
        pixels = patches + draw.integers(0, 56, (SIDE, SIDE, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
        found.append(Sample(str(number), {"image": file.getvalue()}))
    return found


def pixels_of(sample: Sample) -> dict[str, torch.Tensor]:
    """An image as a model takes it: from 0 to 1, less MEAN, divided by STD."""
    content = sample.fields["image"]
    assert isinstance(content, bytes)
    values = torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).permute(2, 0, 1)[None].double() / 255
    mean, std = (torch.tensor(one).double().reshape(1, 3, 1, 1) for one in (MEAN, STD))
    return {"pixel_values": ((values - mean) / std).float()}


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(one)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value
