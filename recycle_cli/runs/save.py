"""Save a RUN: trunk and head in one checkpoint, tokenizer, label names, a model card, and the metadata last."""

import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from recycle_cli import __version__
from recycle_cli.disk import digest, make_folder, sync, sync_tree
from recycle_cli.errors import RecycleError, StorageError
from recycle_cli.models import AnyLoaded
from recycle_cli.runs.beginning import LOG_FILES, STAGING
from recycle_cli.runs.documents import write_sealed
from recycle_cli.runs.folder import ABOUT, CHECKPOINT
from recycle_cli.runs.metadata import CONFIG, MODEL_CARD, RunInfo

Save = Callable[[Path, int | None], None]
"""Writes the checkpoint into a folder. The second argument is the most tokens of a text; None for images."""


def versions() -> dict[str, str]:
    """Versions of the packages that decide the figures of a run."""
    packages = ("torch", "torchvision", "transformers", "zarr", "numpy")
    found = {package: version(package) for package in packages}
    return {"recycle": __version__, "python": platform.python_version(), **found}


def save_run(
    folder: Path, loaded: AnyLoaded, info: RunInfo, card: str, config: str = "", save: Save | None = None
) -> None:
    """Write the checkpoint into the RUN's folder and mark it finished; all of it is on the disk then.

    `config`: what `config.toml` holds. `save` writes the checkpoint in another way than the model's own. Raises
    StorageError if the disk does not take it.
    """
    staging = folder / CHECKPOINT / STAGING
    try:
        shutil.rmtree(staging, ignore_errors=True)
        make_folder(staging)
        _save(save or loaded.save, staging, info.max_length)
        readme = staging / MODEL_CARD
        readme.write_text(card, encoding="utf-8")
        # A path may hold bytes that are no UTF-8.
        (staging / CONFIG).write_text(config, encoding="utf-8", errors="surrogateescape")
        for tensors in staging.rglob("*.safetensors"):  # safetensors writes them for their owner alone
            tensors.chmod(readme.stat().st_mode)
        files = sorted(path for path in staging.rglob("*") if path.is_file())
        digests = {path.relative_to(staging).as_posix(): digest(path) for path in files}
        for log in (folder / name for name in LOG_FILES if (folder / name).exists()):
            sync(log)
            digests[log.name] = digest(log)
        sync_tree(staging)
        write_sealed(staging / ABOUT, replace(info, versions=versions(), files=digests).to_json())
        _move(staging, folder, files)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error}); free some space, then --resume") from error


def _save(save: Save, folder: Path, max_length: int | None) -> None:
    """Let the model's library write its files. Any failure is a StorageError, since the same was tried before the
    training."""
    try:
        save(folder, max_length)
    except (RecycleError, MemoryError, OSError):
        raise
    except Exception as error:  # safetensors and tokenizers raise exceptions of their own over a disk that fails
        said = " ".join(str(error).split()) or type(error).__name__
        raise StorageError(f"{folder} cannot be written ({said}); free some space, then --resume") from error


def _move(staging: Path, folder: Path, files: list[Path]) -> None:
    """Move the files to their places in the RUN, `recycle.json`, which makes it a finished one, last."""
    places = [folder / path.relative_to(staging) for path in files]
    for path, place in zip(files, places, strict=True):
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    sync(*dict.fromkeys([folder, *(place.parent for place in places)]))
    (staging / ABOUT).replace(folder / ABOUT)
    sync(folder)
