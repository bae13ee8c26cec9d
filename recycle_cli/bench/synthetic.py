"""Make synthetic corpora and a model with random weights, without a network: invented words and random images."""

import json
import random
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image

from recycle_cli.models.hub import quiet

WORDS = [first + second + third for first in ("ba", "ke", "lo", "mu") for second in "aeiou" for third in "lmnrst"]
BLOCKS, WIDTH, HEADS, PLACES = 6, 128, 4, 256
MEDIAN_WORDS, SPREAD = 40, 0.6
"""Median and spread of the number of words, which is log-normal, roughly as for sentences of scientific texts."""

SIDES = (500, 375)
"""Width and height of an image, as in most of ImageNet; one in four is upright. A JPEG takes about 100 kB, as there."""
DETAIL = ((60, 90), (6, 50), (2, 48))
"""(width in pixels, largest distance from grey) of patches of random colour, from coarse to fine."""
QUALITY = 90


def write_corpus(path: Path, records: int, seed: int) -> Path:
    """Write JSON lines of invented texts with two labels."""
    draw = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(records):
            words = max(3, min(PLACES, round(MEDIAN_WORDS * draw.lognormvariate(0, SPREAD))))
            text = " ".join(draw.choices(WORDS, k=words))
            file.write(json.dumps({"text": text, "label": str(number % 2)}) + "\n")
    return path


def write_images(folder: Path, records: int, seed: int) -> Path:
    """Write JPEG files of random patches, coarse and fine."""
    draw = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(records):
        width, height = SIDES if number % 4 else SIDES[::-1]
        pixels = np.full((height, width, 3), 128.0, dtype=np.float32)
        for patch, spread in DETAIL:
            colours = draw.integers(-spread, spread, (height // patch + 2, width // patch + 2, 3)) + 128
            grown = Image.fromarray(colours.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
            pixels += np.asarray(grown, dtype=np.float32) - 128
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{number:05d}.jpg", quality=QUALITY)
    return folder


def write_model(folder: Path, seed: int) -> Path:
    """Write a BERT with random weights, 6 blocks and width 128, and a tokenizer of the invented words."""
    config = transformers.BertConfig(
        vocab_size=len(WORDS) + 4,
        hidden_size=WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=PLACES,
    )
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformers.BertModel(config).save_pretrained(folder)
        _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    known = {name: number for number, name in enumerate(names)}
    rules = tokenizers.Tokenizer(tokenizers.models.WordLevel(known, unk_token="[UNK]"))
    rules.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    rules.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=rules, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
