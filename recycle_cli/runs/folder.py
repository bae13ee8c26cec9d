"""The folder of a RUN: whether it is one, whether its training has finished, and who trains in it.

A folder is a RUN by what is in its files: `recycle.json`, which is written last, when the RUN is finished and whole, or
`checkpoint/training.json`, which is written first. A RUN that replaces another is trained beside it, in `.NAME.new`,
and takes its place in one step.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recycle_cli.disk import expanded, is_locked, read_object
from recycle_cli.disk.durable import PARTIAL
from recycle_cli.errors import StorageError, UsageError

ABOUT = "recycle.json"
LOG = "metrics.jsonl"
CHECKPOINT = "checkpoint"
TRAINING = "training.json"
LOCK = "lock"
STATE = "state.safetensors"
RESERVED = (ABOUT, LOG, CHECKPOINT)
"""Names in a RUN's folder: no head may have one."""

RUN_VERSION = 2
"""Of `recycle.json`. Version 1 had no digests."""

TRAINING_VERSION = 3
"""Of a checkpoint. Before 3 there was no `training.json`, before 2 steps were rounded otherwise."""

ANEW = "begin the run anew with --overwrite"
"""The remedy for an unfinished RUN that cannot go on."""

Content = Literal["nothing", "finished", "unfinished", "foreign"]


@dataclass(frozen=True)
class RunFolder:
    """Where a RUN will lie (`output`), and the folder in which it is trained (`work`): another if it replaces a RUN."""

    output: Path
    work: Path

    @property
    def replaces(self) -> bool:
        """Whether it replaces a RUN, which stays until this one is whole."""
        return self.work != self.output

    @property
    def lock(self) -> Path:
        """The lock file that a training in the folder holds."""
        return self.work / CHECKPOINT / LOCK


def beside(output: Path) -> Path:
    """The folder in which the successor of a RUN in `output` is trained, and from which the old RUN is removed."""
    return output.with_name(f".{output.name}.new")


def claim(output: str, *, overwrite: bool, resume: bool) -> RunFolder:
    """Choose the folder in which a RUN for `output` is trained. Nothing is made or changed; `begin` does that.

    Raises UsageError if `output` holds something other than a RUN, or a RUN that the two flags do not allow to replace
    or resume; StorageError if the folder cannot be written, or another process trains in it.
    """
    folder = Path(expanded(output))
    folder = Path(os.path.realpath(folder)) if folder.is_symlink() else folder
    new = beside(folder)
    found, successor = content_of(folder), content_of(new)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{output} is a file; --output must name a folder")
    if found == "foreign":
        raise UsageError(f"{output} is not empty and is no run{_why_not(folder)}; choose another --output")
    work = folder
    if successor == "unfinished" and (resume or (found == "finished" and overwrite)):
        work = new
    elif found == "finished":
        work = _replacing(output, new, successor, overwrite=overwrite, resume=resume)
    elif found == "unfinished" and not (overwrite or resume):
        raise UsageError(f"{output} holds an unfinished run; add --resume to go on with it, or --overwrite")
    place = RunFolder(folder, work)
    if is_locked(place.lock):
        raise busy(output)
    _check_writable(work)
    return place


def _replacing(output: str, new: Path, successor: Content, *, overwrite: bool, resume: bool) -> Path:
    """The folder in which the successor of a finished RUN is trained."""
    if overwrite:
        if successor == "foreign":
            raise UsageError(f"{new} is no run, and is where the new run would be trained; move it away")
        return new
    if successor == "unfinished":
        raise UsageError(
            f"{output} holds a finished run, and {new} the unfinished one that is to replace it; add --resume to go on "
            "with that, or --overwrite to begin it anew"
        )
    if resume:
        raise UsageError(f"{output} is finished; there is nothing to resume")
    raise UsageError(f"{output} holds a finished run; add --overwrite, or choose another --output")


def busy(output: object) -> StorageError:
    """The error for a RUN that another process is training."""
    return StorageError(f"{output}: another process trains this run; wait for it, or choose another --output")


def content_of(folder: Path) -> Content:
    """What a folder holds, by its files: a finished or an unfinished RUN of a known version, nothing, or something
    else."""
    if not folder.is_dir():
        return "foreign" if os.path.lexists(folder) else "nothing"
    if is_unfinished(folder):
        return "unfinished" if not is_finished(folder) or _is_beside(folder) else "finished"
    if is_finished(folder):
        return "finished"
    return "nothing" if all(_is_begun(entry) for entry in folder.iterdir()) else "foreign"


def _is_begun(entry: Path) -> bool:
    """Whether an entry is the checkpoint folder of a training that ended before it wrote anything."""
    if entry.name != CHECKPOINT or entry.is_symlink() or not entry.is_dir():
        return False
    return all(one.name == LOCK or one.name.endswith(PARTIAL) for one in entry.iterdir())


def own_files(about: Mapping[str, Any]) -> list[str]:
    """The files that a `recycle.json` lists, without those outside the folder; its own name comes last."""
    listed = about.get("files")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, dict) else []
    inside = [name for name in names if not Path(name).is_absolute() and ".." not in Path(name).parts]
    return [*inside, ABOUT]


def _is_beside(folder: Path) -> bool:
    """Whether a folder has the name of one in which the successor of a RUN is trained."""
    return folder.name.startswith(".") and folder.name.endswith(".new")


def is_run(folder: str | Path) -> bool:
    """Whether a folder holds a RUN, finished or not."""
    return is_finished(folder) or is_unfinished(Path(expanded(str(folder))))


def is_finished(folder: str | Path) -> bool:
    """Whether a folder holds a RUN that is finished and whole, of this version or an earlier one."""
    found = _object(Path(expanded(str(folder)), ABOUT))
    return is_known(found) and {"task", "cut", "report"} <= found.keys()


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds an unfinished RUN: the mark of its training, or a checkpoint of an earlier version."""
    found = _object(folder / CHECKPOINT / TRAINING)
    ours = _version(found) == TRAINING_VERSION and {"training", "settings", "digest"} <= found.keys()
    return ours or _is_old_state(folder)


def is_to_be_replaced(output: str | Path) -> bool:
    """Whether a RUN that is to replace the one in `output` is being trained."""
    return content_of(beside(Path(expanded(str(output))))) == "unfinished"


def _is_old_state(folder: Path) -> bool:
    """Whether there is a checkpoint that an earlier version left."""
    from safetensors import SafetensorError, safe_open

    path = folder / CHECKPOINT / STATE
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            return {"settings", "scaler"} <= (file.metadata() or {}).keys()
    except (SafetensorError, OSError, RuntimeError):
        return False


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is none."""
    try:
        return read_object(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    except OSError as error:
        if error.errno is None:  # no regular file
            return {}
        raise StorageError(f"{path} cannot be read ({error.strerror})") from error


def is_known(about: Mapping[str, Any]) -> bool:
    """Whether a `recycle.json` is of this version or an earlier one."""
    return _version(about) in range(1, RUN_VERSION + 1)


def _version(found: Mapping[str, Any]) -> int | None:
    version = found.get("version")
    return version if isinstance(version, int) and not isinstance(version, bool) else None


def _why_not(folder: Path) -> str:
    """A remark for a folder that is no RUN but has a `recycle.json`; empty for all others."""
    about = folder / ABOUT
    return f" (its {ABOUT} is not that of a run which this version knows)" if about.exists() else ""


def _check_writable(folder: Path) -> None:
    """Raise StorageError if nothing can be made in a folder, or in the lowest existing one above it."""
    above = folder
    while not above.exists():
        above = above.parent
    try:
        Path(tempfile.mkdtemp(prefix=".writable", dir=above)).rmdir()
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error.strerror}); choose another --output") from error
