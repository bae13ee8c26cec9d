"""The folder of a RUN: whose it is, and whether its training has finished.

`recycle.json` is written last: if it is there, the RUN is finished and whole.
"""

import shutil
import tempfile
from pathlib import Path

from recycle_cli.errors import StorageError, UsageError

ABOUT = "recycle.json"
LOG = "metrics.jsonl"
CHECKPOINT = "checkpoint"
OWN = (ABOUT, LOG, CHECKPOINT)
"""Names by which a folder is told to be a RUN: no folder within --output may have one."""


def claim(output: str, *, overwrite: bool, resume: bool) -> Path:
    """Check that a RUN may be written to `output`, and return its folder; `clear` makes or empties it later.

    Raises UsageError if it holds something that must not be lost, StorageError if it cannot be written.
    """
    folder = Path(output)
    finished, unfinished = is_finished(folder), (folder / CHECKPOINT).exists()
    if finished and not overwrite:
        raise UsageError(f"{output} holds a finished run; add --overwrite, or choose another --output")
    if unfinished and not finished and not (overwrite or resume):
        raise UsageError(f"{output} holds an unfinished run; add --resume to go on with it, or --overwrite")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{output} is a file; --output must name a folder")
    if folder.exists() and not (finished or unfinished) and any(entry.name != LOG for entry in folder.iterdir()):
        raise UsageError(f"{output} is not empty and is no run; choose another --output")
    if resume and finished:
        raise UsageError(f"{output} is finished; there is nothing to resume")
    _check_writable(folder)
    return folder


def _check_writable(folder: Path) -> None:
    """Make a folder beside the RUN, or in it if it exists, and remove it again."""
    above = folder
    while not above.exists():
        above = above.parent
    try:
        Path(tempfile.mkdtemp(prefix=".writable", dir=above)).rmdir()
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error.strerror}); choose another --output") from error


def is_run(folder: str | Path) -> bool:
    """Whether a folder holds a RUN, finished or not."""
    return is_finished(folder) or Path(folder, CHECKPOINT).exists()


def is_finished(folder: str | Path) -> bool:
    """Whether a folder holds a RUN that is finished and whole."""
    return Path(folder, ABOUT).exists()


def clear(folder: Path) -> None:
    """Empty a RUN's folder of an earlier run, its mark of being finished first, and mark it as unfinished."""
    (folder / CHECKPOINT).mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).unlink(missing_ok=True)
    stale = [entry for entry in folder.iterdir() if entry.name != CHECKPOINT]
    for entry in [*stale, *(folder / CHECKPOINT).iterdir()]:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
