"""Put a whole RUN in its place, and keep those files of the RUN before it that were not its own."""

import os
import shutil
from contextlib import suppress
from itertools import count
from pathlib import Path

from recycle_cli.disk import exchange, expanded, read_object, sync
from recycle_cli.reports import say
from recycle_cli.runs.beginning import BOARD, EVENTS, LOG_FILES, SCRATCH, drop_checkpoint
from recycle_cli.runs.folder import ABOUT, RunFolder, beside, content_of, is_finished, own_files


def put_in_place(place: RunFolder) -> None:
    """Give a whole RUN its name, in one step if it replaces another, and drop its checkpoint. Raises OSError."""
    if place.replaces:
        drop_checkpoint(place.output)
        _swap(place.work, place.output)
        sync(place.output.parent)
        _try_to_remove(place.output)
    drop_checkpoint(place.output)


def recover(path: str) -> None:
    """Finish `put_in_place` if a crash has cut it short; else do nothing. Raises OSError."""
    output = Path(expanded(path))
    new, before = beside(output), _before(output)
    if not os.path.lexists(output) and is_finished(new):
        new.rename(output)
        say(f"{output}: put the finished run of {new} in its place")
    if is_finished(output) and is_finished(before) and not os.path.lexists(new):
        before.rename(new)
    if is_finished(output) and content_of(new) == "finished":
        _try_to_remove(output)
    if is_finished(output) and content_of(new) == "nothing":
        with suppress(OSError):
            new.rmdir()


def _try_to_remove(output: Path) -> None:
    """Remove the replaced RUN. If that fails, say so: the new RUN is complete, and the next training tries again."""
    try:
        remove_replaced(output)
    except OSError as error:
        say(f"{beside(output)}: the run that {output} has replaced could not be removed ({error.strerror or error})")


def remove_replaced(output: Path) -> None:
    """Remove the RUN that `output` has replaced, which lies beside it. Files that were not its own move into `output`.

    The list of its own files is removed last, so that the next call can go on. Says what is kept.
    """
    old = beside(output)
    about = read_object(old / ABOUT)
    if "files" not in about:  # version 1 did not list its files
        kept = _free(output.with_name(f"{output.name}.before"))
        old.rename(kept)
        say(f"{kept}: the run that was in {output}; it does not list its files, so remove it yourself")
        return
    own = {name: old / name for name in [*LOG_FILES, *own_files(about)] if name != ABOUT}
    if about.get("settings", {}).get("freezing", {}).get("rule", "none") != "none":
        shutil.rmtree(old / SCRATCH, ignore_errors=True)  # rows that its training was told to keep
    board = old / BOARD
    if board.is_dir() and not board.is_symlink():
        own |= {f"{BOARD}/{file.name}": file for file in board.iterdir() if file.name.startswith(EVENTS)}
    kept_names = _carry_over(old, output, set(own))
    for path in own.values():
        path.unlink(missing_ok=True)
    _remove_empty_folders(old)
    left = [entry.name for entry in old.iterdir() if entry.name != ABOUT]
    if kept_names:
        say(f"{output}: kept {', '.join(kept_names)} of the run before")
    if left:
        say(f"{old}: kept {', '.join(sorted(left))} of the run before, whose names the new run has too")
        return
    (old / ABOUT).unlink(missing_ok=True)
    old.rmdir()


def _carry_over(old: Path, output: Path, own: set[str]) -> list[str]:
    """Move the files and folders that are not the RUN's own, unless their names are taken. Returns the names moved."""
    moved = []
    for name in _foreign(old, old, {*own, ABOUT}):
        target = output / name
        if not os.path.lexists(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            (old / name).rename(target)
            moved.append(name)
    return moved


def _foreign(folder: Path, root: Path, own: set[str]) -> list[str]:
    """The entries of a folder that are not the RUN's own; a folder without any of its files is one entry."""
    found: list[str] = []
    for entry in sorted(folder.iterdir()):
        name = entry.relative_to(root).as_posix()
        if name in own:
            continue
        if entry.is_dir() and not entry.is_symlink() and any(one.startswith(f"{name}/") for one in own):
            found += _foreign(entry, root, own)
        else:
            found.append(name)
    return found


def _remove_empty_folders(root: Path) -> None:
    for parent, folders, _ in os.walk(root, topdown=False):
        for name in folders:
            with suppress(OSError):
                Path(parent, name).rmdir()


def _swap(new: Path, output: Path) -> None:
    """Exchange two folders, in one step if the system can, else by renames from which `recover` can go on."""
    if not os.path.lexists(output):
        new.rename(output)
        return
    if exchange(new, output):
        return
    before = _before(output)
    output.rename(before)
    new.rename(output)
    sync(output.parent)
    before.rename(new)


def _before(output: Path) -> Path:
    """Where the old RUN lies between two renames."""
    return output.with_name(f".{output.name}.old")


def _free(path: Path) -> Path:
    """The path, or if it is taken the path with a number."""
    names = (path if not number else path.with_name(f"{path.name}-{number}") for number in count())
    return next(one for one in names if not os.path.lexists(one))
