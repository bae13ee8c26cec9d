"""Fail each call that a command makes of the file system, one after another, and see what is left.

    python -m tests.faults.sweep [--errors EIO ENOSPC] [--calls open write ...] [--verbs finetune ...] [--every N]
        [--first N]

Every command is run once for each call that it makes below its folder: the call fails, in a library that is preloaded
(`failing.c`, compiled by cc). The command must end with exit code 0 or 4 (3: an input could not be read), one line and
no traceback; what was whole before is whole; and the command, given again, ends as it would have without the failure.
Prints one JSON object with the trials, by verb and call, and those that failed; exits with 1 if any did.
"""

import argparse
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from recycle_cli.errors import RecycleError
from recycle_cli.runs import check_files, read_info, recover
from recycle_cli.store import Store
from tests.commands import Commands, Done
from tests.conftest import save_tiny, tiny_config
from tests.contents import contents
from tests.records import records, write_csv

CALLS = ("open", "write", "fsync", "rename", "mkdir", "unlink", "chmod")
SOURCE = Path(__file__).with_name("failing.c")
LENGTH = ("--max-length", 24)
TRAINING = ("--epochs", 2, "--save-steps", 3, "--eval", "dev.csv", "--batch-size", 16)


def compiled(folder: Path) -> Path | None:
    """The library that fails calls; None if there is no compiler."""
    if sys.platform != "linux" or shutil.which("cc") is None:
        return None
    library = folder / "failing.so"
    done = subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=False)
    return library if done.returncode == 0 else None


def _is_told(number: int, said: str) -> bool:
    """Whether a message says why a file could not be read; safetensors tells no reason."""
    return os.strerror(number) in said or "could not be opened" in said


class Sweep:
    """Runs commands with failing calls over copies of one prepared folder."""

    def __init__(self, recycle: Commands, folder: Path) -> None:
        self.recycle, self.folder = recycle, folder
        self.prepared, self.mark = folder / "prepared", folder / "mark"
        self.prepared.mkdir()
        save_tiny(folder / "model", tiny_config(num_hidden_layers=2), bare=True)
        write_csv(self.prepared / "train.csv", records(48))
        write_csv(self.prepared / "dev.csv", records(16))
        write_csv(self.prepared / "new.csv", records(16, seed=5))
        model = ("--model", folder / "model", "--cut", 1, *LENGTH)
        self.command(self.prepared, "precompute", "train.csv", "s.zarr", *model)
        self.command(self.prepared, "finetune", "train.csv", "s.zarr", "--output", "old", "--seed", 7, *TRAINING)
        self.count = 0
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []

    def command(self, place: Path, *arguments: object, env: dict[str, str] | None = None) -> Done:
        done = self.recycle(*arguments, cwd=place, env={**(env or {}), "PYTHONUNBUFFERED": "1"})
        assert "Traceback" not in done.err, done.err
        if env is None:
            assert done.code == 0, done.err
        return done

    def verb(self, name: str) -> tuple[tuple[object, ...], tuple[object, ...]]:
        """The arguments of a command, and of the same to go on."""
        training = ("finetune", "train.csv", "s.zarr", *TRAINING, "--seed", 3)
        if name == "finetune":
            return (*training, "--output", "new"), (*training, "--output", "new", "--resume")
        if name == "overwrite":
            return (*training, "--output", "old", "--overwrite"), (*training, "--output", "old", "--resume")
        predicting = ("predict", "new.csv", "old", "--output", "out.csv")
        if name == "predict":
            return predicting, predicting
        return (*predicting, "--store", "s.zarr", "--write-back"), (*predicting, "--store", "s.zarr", "--write-back")

    def undisturbed(self, name: str) -> dict[str, Any]:
        place = self.fresh()
        self.command(place, *self.verb(name)[0])
        return self.left(place, name)

    def fresh(self) -> Path:
        self.count += 1
        place = self.folder / str(self.count)
        shutil.copytree(self.prepared, place)
        return place

    def left(self, place: Path, name: str) -> dict[str, Any]:
        """What a command leaves that has ended well: a RUN but for its times, labels, the keys of a store."""
        if name in ("finetune", "overwrite"):
            run = place / ("new" if name == "finetune" else "old")
            recover(str(run))  # as the next finetune would: the RUN that was replaced may still be there
            check_files(run, read_info(run))
            names = ("model.safetensors", "config.json", "tokenizer.json", "metrics.jsonl")
            hidden = [one.name for one in place.iterdir() if one.name.startswith(".")]
            # An empty folder that could not be removed is no harm.
            assert not [name for name in hidden if not name.startswith(".writable")], hidden
            return {name: (run / name).read_bytes() for name in names}
        assert [one.name for one in place.iterdir() if one.name.startswith(".")] == []
        lines = (place / "out.csv").read_text().splitlines()
        # What is a hit when the command is given again is computed in another batch, and rounded otherwise.
        return {"labels": [line.split(",")[:2] for line in lines], "keys": sorted(contents(place / "s.zarr"))}

    def trial(self, name: str, call: str, nth: int, number: int, expected: dict[str, Any]) -> bool:
        """Fail one call of a command. Returns False if it makes fewer calls of this kind."""
        place = self.fresh()
        self.mark.unlink(missing_ok=True)
        fault = {"CALL": call, "BELOW": f"{place}/", "NTH": nth, "ERRNO": number, "MARK": self.mark}
        done = self.command(
            place, *self.verb(name)[0], env={f"FAULT_{key}": str(value) for key, value in fault.items()}
        )
        if not self.mark.exists():
            shutil.rmtree(place)
            return False
        trial = (name, call, nth, errno.errorcode[number], done)
        # 3: the corpus, or the model in its trial, cannot be read.
        assert done.code in (0, 4) or (done.code == 3 and _is_told(number, done.err)), trial
        assert done.code == 0 or done.err.splitlines()[-1].startswith("recycle: "), trial
        self.counts[f"{name} {call} {'met' if done.code else 'done all the same'}"] += 1
        self.check_whole(place, trial)
        if done.code:
            self.go_on(place, name, trial)
        assert self.left(place, name) == expected, trial
        shutil.rmtree(place)
        return True

    def check_whole(self, place: Path, about: object) -> None:
        """What had been reported as done is whole: the RUN that was there, or the one in its place; the store."""
        check_files(place / "old", read_info(place / "old"))
        assert len(Store.open(str(place / "s.zarr"))) >= 48, about

    def go_on(self, place: Path, name: str, about: object) -> None:
        """Give the command again: resumed, or if it had not begun as at first."""
        first, again = self.verb(name)
        done = self.recycle(*again, cwd=place)
        if name == "overwrite" and read_info(place / "old").settings["seed"] != 3:
            done = self.recycle(*first, cwd=place)  # it had not begun
        # If it had only failed to say that the RUN is in its place, there is nothing to resume.
        assert done.code == 0 or "nothing to resume" in done.err, (about, done)

    def run(
        self, verbs: tuple[str, ...], calls: tuple[str, ...], errors: tuple[int, ...], every: int, first: int = 1
    ) -> dict[str, int]:
        for name in verbs:
            expected = self.undisturbed(name)
            for call in calls:
                for number in errors:
                    nth = first
                    while self.noted(name, call, nth, number, expected):
                        nth += every
        return dict(sorted(self.counts.items()))

    def noted(self, name: str, call: str, nth: int, number: int, expected: dict[str, Any]) -> bool:
        """A trial, which is told of on stderr; one that fails is kept with the failures."""
        said = f"{name} {call} {errno.errorcode[number]} {nth}"
        try:
            there = self.trial(name, call, nth, number, expected)
        except (AssertionError, OSError, RecycleError) as error:
            there = True
            self.failures.append(said)
            said += f": {type(error).__name__}: {error}"
        if there:
            print(said, file=sys.stderr, flush=True)
        return there


VERBS = ("finetune", "overwrite", "predict", "write-back")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--errors", nargs="+", default=["EIO", "ENOSPC"])
    parser.add_argument("--calls", nargs="+", default=CALLS, choices=CALLS)
    parser.add_argument("--verbs", nargs="+", default=VERBS, choices=VERBS)
    parser.add_argument("--every", type=int, default=1, help="fail only every so manieth call")
    parser.add_argument("--first", type=int, default=1, help="begin with this call of each kind, to go on with a sweep")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(Path(folder))
        if library is None:
            sys.exit("there is no cc to compile the library with")
        os.environ["LD_PRELOAD"] = str(library)
        commands = Commands()
        del os.environ["LD_PRELOAD"]
        errors = [getattr(errno, name) for name in options.errors]
        sweep = Sweep(commands, Path(folder).resolve())
        counts = sweep.run(options.verbs, options.calls, errors, options.every, options.first)
        print(json.dumps({"trials": counts, "failures": sweep.failures}))
        commands.close()
    sys.exit(bool(sweep.failures))


if __name__ == "__main__":
    main()
