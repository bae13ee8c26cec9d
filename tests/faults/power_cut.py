"""Cut the power of a disk at many instants of a command, and see what is on it afterwards.

    python -m tests.faults.power_cut [--instants 30] [--verbs finetune ...]

The disk is ext4, with its defaults, on a loop device over a file: a copy of that file at some instant is the disk after
a power cut then. (The command is stopped while it is copied.) Needs root, for mounting. After each cut the RUN that was
there before is whole, or the new one is in its place; a training that was begun goes on; a checkpoint that was written
reads; and what the command had reported as done is whole. Prints one JSON object with the cuts by verb and what was
found after them.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recycle_cli.errors import RecycleError
from recycle_cli.runs import check_files, is_finished, is_run, read_info, steps_of
from recycle_cli.runs.folder import beside
from tests.commands import Commands
from tests.conftest import save_tiny, tiny_config
from tests.records import records, write_csv

MIB = 1 << 20
SIZE = 32 * MIB
HEADS = """[[head]]
name = "one"
seed = 1
[[head]]
name = "two"
seed = 2
"""
TRAINING = ("--epochs", 3, "--save-steps", 2, "--batch-size", 16)
VERBS = ("finetune", "overwrite", "heads", "predict")


def can_mount(folder: Path) -> bool:
    """Whether a disk can be mounted here."""
    try:
        with Disk(folder / "try", make=True):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


class Disk:
    """An ext4 file system in a file, mounted beside it."""

    def __init__(self, place: Path, *, make: bool = False) -> None:
        self.image, self.folder = place.with_suffix(".img"), place
        if make:
            with self.image.open("wb") as file:
                file.truncate(SIZE)
            _run("mkfs.ext4", "-q", "-F", self.image)

    def __enter__(self) -> Path:
        self.folder.mkdir()
        _run("mount", "-o", "loop", self.image, self.folder)
        return self.folder

    def __exit__(self, *error: object) -> None:
        _run("umount", "--lazy", self.folder)
        self.folder.rmdir()


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


class Trial:
    """Commands on a disk whose power fails."""

    def __init__(self, recycle: Commands, folder: Path) -> None:
        self.recycle, self.folder = recycle, folder
        self.counts: Counter[str] = Counter()
        save_tiny(folder / "model", tiny_config(num_hidden_layers=2), bare=True)
        write_csv(folder / "train.csv", records(48))
        (folder / "heads.toml").write_text(HEADS)
        model = ("--model", folder / "model", "--cut", 1, "--max-length", 24)
        self.recycle.json("precompute", "train.csv", "s.zarr", *model, cwd=folder)
        self.recycle.json(*self.verb("finetune", folder), "--output", folder / "old", cwd=folder)
        self.cut_number = 0

    def verb(self, name: str, disk: Path) -> tuple[object, ...]:
        training = ("finetune", "train.csv", "s.zarr", *TRAINING)
        return {
            "finetune": training,
            "overwrite": (*training, "--output", disk / "old", "--overwrite", "--seed", 9),
            "heads": (*training, "--output", disk / "runs", "--heads", "heads.toml"),
            "predict": ("predict", "train.csv", self.folder / "old", "--output", disk / "out.csv"),
        }[name]

    def run(self, name: str, instants: int) -> None:
        """A command with cuts spread over it, and one right after it has reported that it is done."""
        options = ("--output", "DISK/new") if name == "finetune" else ()
        seconds = self.seconds(name, options)
        with Disk(self.folder / "disk", make=True) as disk:
            shutil.copytree(self.folder / "old", disk / "old")
            subprocess.run(["sync", "-f", str(disk)], check=True)
            arguments = [str(one).replace("DISK", str(disk)) for one in (*self.verb(name, disk), *options)]
            running = self.recycle.start(*arguments, "--json", cwd=self.folder)
            began, taken = time.monotonic(), 0.0
            for number in range(instants - 1):
                while time.monotonic() - began - taken < seconds * (number + 0.5) / instants and not running.ended:
                    time.sleep(0.001)
                if running.ended:
                    break
                running.send(signal.SIGSTOP)
                started = time.monotonic()
                self.cut(name, done=False)
                taken += time.monotonic() - started
                running.send(signal.SIGCONT)
            done = running.wait()
            assert done.code == 0, done
            self.cut(name, done=True)

    def seconds(self, name: str, options: tuple[object, ...]) -> float:
        """How long the command takes undisturbed."""
        with Disk(self.folder / "disk", make=True) as disk:
            shutil.copytree(self.folder / "old", disk / "old")
            arguments = [str(one).replace("DISK", str(disk)) for one in (*self.verb(name, disk), *options)]
            started = time.monotonic()
            self.recycle.json(*arguments, cwd=self.folder)
            return time.monotonic() - started

    def cut(self, name: str, *, done: bool) -> None:
        """Look at the disk as it would be if the power failed now."""
        with self.after_cut() as disk:
            found = self.check(name, disk, done=done)
        self.counts[f"{name}: {found}"] += 1

    @contextmanager
    def after_cut(self) -> Iterator[Path]:
        self.cut_number += 1
        place = self.folder / f"cut-{self.cut_number}"
        shutil.copyfile(self.folder / "disk.img", place.with_suffix(".img"))
        try:
            with Disk(place) as disk:
                yield disk
        finally:
            place.with_suffix(".img").unlink()

    def check(self, name: str, disk: Path, *, done: bool) -> str:
        check_files(disk / "old", read_info(disk / "old"))
        if name == "predict":
            out = disk / "out.csv"
            assert out.exists() or not done, "predictions that were reported are gone"
            assert not out.exists() or len(out.read_text().splitlines()) == 49, "predictions are not whole"
            return "whole" if out.exists() else "nothing"
        if name == "overwrite":
            new = read_info(disk / "old").settings["seed"] == 9
            assert new or not done, "the RUN that was reported is gone"
            return "new" if new else self.training(beside(disk / "old"))
        runs = [disk / "new"] if name == "finetune" else [disk / "runs" / "one", disk / "runs" / "two"]
        for run in runs:
            if is_finished(run):
                check_files(run, read_info(run))
            assert is_finished(run) or not done, "the RUN that was reported is gone"
        return "whole" if all(map(is_finished, runs)) else self.training(runs[0])

    def training(self, run: Path) -> str:
        """How far an unfinished training is; its checkpoint must read."""
        if not is_run(run):
            return "nothing"
        try:
            return "a checkpoint" if steps_of(run) else "begun"
        except RecycleError as error:
            raise AssertionError(f"a checkpoint does not read: {error}") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instants", type=int, default=30)
    parser.add_argument("--verbs", nargs="+", default=VERBS, choices=VERBS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        if not can_mount(place):
            sys.exit("no disk can be mounted here")
        commands = Commands()
        trial = Trial(commands, place)
        for name in options.verbs:
            trial.run(name, options.instants)
        print(json.dumps(dict(sorted(trial.counts.items()))))
        commands.close()


if __name__ == "__main__":
    main()
