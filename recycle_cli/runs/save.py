"""Saving a RUN: trunk and head in one checkpoint, tokenizer, label names, a model card, and the metadata last."""

import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError

from recycle_cli import __version__
from recycle_cli.errors import StorageError
from recycle_cli.models import AnyLoaded
from recycle_cli.runs.folder import ABOUT, CHECKPOINT
from recycle_cli.runs.metadata import RunInfo

CONFIG = "config.toml"
"""The options of a RUN's training, for `recycle finetune --config`."""

Save = Callable[[Path, int | None], None]
"""Writes the checkpoint into a folder; takes the tokens of a text at most."""


def versions() -> dict[str, str]:
    """Versions of the packages that decide the figures of a run."""
    packages = ("torch", "torchvision", "transformers", "zarr", "numpy")
    found = {package: version(package) for package in packages}
    return {"recycle": __version__, "python": platform.python_version(), **found}


def save_run(
    folder: Path, loaded: AnyLoaded, info: RunInfo, card: str, config: str = "", save: Save | None = None
) -> None:
    """Write the checkpoint into the RUN and mark it finished. Raises StorageError if the disk does not take it.

    `config`: what `config.toml` holds. `save` writes the checkpoint in another way than the model's own.
    """
    try:
        (save or loaded.save)(folder, info.max_length)
        readme = folder / "README.md"
        readme.write_text(card, encoding="utf-8")
        (folder / CONFIG).write_text(config, encoding="utf-8")
        for tensors in folder.rglob("*.safetensors"):  # safetensors writes them for their owner alone
            tensors.chmod(readme.stat().st_mode)
        finish(folder, replace(info, versions=versions()))
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{folder} cannot be written ({error}); free some space, then --resume") from error


def finish(folder: Path, info: RunInfo) -> None:
    """Write `recycle.json`, which makes the RUN a finished one, and drop what only a resume needed."""
    partial = folder / f"{ABOUT}.partial"
    partial.write_text(json.dumps(info.to_json(), indent=2, default=str) + "\n", encoding="utf-8")
    partial.replace(folder / ABOUT)
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
