"""Begin a training in a RUN's folder, alone, or go on with the one that is there."""

import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recycle_cli.disk import Lock, make_folder, read_object, sync
from recycle_cli.disk.durable import PARTIAL
from recycle_cli.errors import StorageError, StoreError
from recycle_cli.reports import say
from recycle_cli.runs.documents import read_sealed, write_sealed
from recycle_cli.runs.folder import (
    ABOUT,
    ANEW,
    CHECKPOINT,
    LOCK,
    LOG,
    STATE,
    TRAINING,
    TRAINING_VERSION,
    RunFolder,
    busy,
    is_finished,
    is_unfinished,
    own_files,
)
from recycle_cli.runs.same_settings import same_settings
from recycle_cli.runs.trackers.table import METRICS_TABLE
from recycle_cli.runs.trackers.tracking import TRACKER_KEYS

BEST = "best.safetensors"
SCRATCH = "scratch"
"""The folder in the checkpoint's with a training's own rows, and in a RUN the one with those that are kept."""

STAGING = "run"
"""The folder in the checkpoint's in which the RUN is saved before its files get their places."""

LOG_FILES = (LOG, METRICS_TABLE, TRACKER_KEYS)
"""The files in which a training logs, beside TensorBoard's; no prediction depends on them."""

BOARD = "tensorboard"
EVENTS = "events.out.tfevents."


@contextmanager
def begin(place: RunFolder, settings: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """Lock the RUN's folder, and mark it as a training with these settings or go on with the one that is there.

    Without `resume`, what an earlier training left is removed. Raises UsageError naming the first setting that differs
    from when the training began, StorageError if another process trains in the folder.
    """
    make_folder(place.work / CHECKPOINT)
    try:
        lock = Lock(place.lock)
    except BlockingIOError:
        raise busy(place.output) from None
    try:
        if not lock.supported:
            say(f"{place.output}: this file system has no locks; do not train this run in another process meanwhile")
        path = place.work / CHECKPOINT / TRAINING
        if resume and is_unfinished(place.work):
            if path.exists():  # a checkpoint of an earlier version has none, and is refused when it is read
                same_settings(_settings(read_sealed(path), path), settings)
        else:
            if not place.replaces and is_finished(place.output):
                raise StorageError(
                    f"{place.output} was finished since this command began; to replace it add --overwrite"
                )
            clear(place.work)
            about = {"version": TRAINING_VERSION, "training": secrets.token_hex(8), "settings": dict(settings)}
            write_sealed(path, about)
        yield
    finally:
        lock.release()


def training_of(folder: Path) -> str:
    """The random identifier of the training in a folder; empty if there is none."""
    path = folder / CHECKPOINT / TRAINING
    return str(read_sealed(path).get("training", "")) if path.exists() else ""


def clear(folder: Path) -> None:
    """Remove the files of an unfinished training from a folder, its mark first; other files stay."""
    inside = folder / CHECKPOINT
    saved = _listed(inside / STAGING / ABOUT)
    (inside / TRAINING).unlink(missing_ok=True)
    (inside / STATE).unlink(missing_ok=True)
    empty_checkpoint(folder)
    for name in saved:
        (folder / name).unlink(missing_ok=True)
    for name in LOG_FILES:
        (folder / name).unlink(missing_ok=True)
    if (folder / BOARD).is_dir() and not (folder / BOARD).is_symlink():
        for file in (folder / BOARD).iterdir():
            if file.name.startswith(EVENTS):
                file.unlink()
        with suppress(OSError):
            (folder / BOARD).rmdir()


def empty_checkpoint(folder: Path) -> None:
    """Remove our own files from the checkpoint's folder but for the lock; raises OSError."""
    inside = folder / CHECKPOINT
    for below in (STAGING, SCRATCH):
        shutil.rmtree(inside / below, ignore_errors=True)
    for name in (STATE, BEST, TRAINING):
        (inside / name).unlink(missing_ok=True)
    for file in inside.iterdir():
        if file.name.startswith(".") and file.name.endswith(PARTIAL):
            file.unlink()


def drop_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a finished RUN. What cannot be removed does no harm, and stays."""
    inside = folder / CHECKPOINT
    if inside.is_symlink() or not is_unfinished(folder):
        return
    with suppress(OSError):
        empty_checkpoint(folder)
    with suppress(OSError):
        (inside / LOCK).unlink(missing_ok=True)
        inside.rmdir()
        sync(folder)


def _settings(about: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    settings = about.get("settings")
    if not isinstance(settings, dict):
        raise StoreError(f"{path} holds no settings; {ANEW}")
    return settings


def _listed(about: Path) -> list[str]:
    """The files that the list of a half-saved RUN names; none if it cannot be read."""
    try:
        return own_files(read_object(about))
    except (OSError, ValueError):
        return []
