"""Kill and stop the real command at random instants, and check the store after each.

    python -m tests.store.crash --kills 200 [--seed N] [--folder DIR] [--full]

A round starts two `recycle precompute` of overlapping corpora into one store. At random, `recycle store gc` and
`recycle store verify --repair` of a segment damaged on purpose run beside them. Each command is a process of its own
and is killed with SIGKILL at an instant drawn uniformly over the time that it takes. Every few rounds a precompute or a
gc is instead stopped (SIGSTOP) at such an instant, while others write, collect and read, and then continued (SIGCONT).

After each round the store must open, `recycle store verify` must find nothing, every sample that was ever seen sealed
must be there once with the right rows, and no dead process may count as a writer. Once a store holds both corpora, both
commands run to their end without computing anything anew, and `gc` removes the duplicates. The store must then equal,
byte for byte, that of an undisturbed run, and the next round starts a new store.

With `--full` the disk of `--folder` is almost filled before each round and freed after its checks, so `--folder` should
be on a small disk. If user namespaces are allowed, this needs no root:

    unshare -rm sh -c 'mount -t tmpfs -o size=6m none /mnt && exec "$@"' sh \
        python -m tests.store.crash --kills 50 --folder /mnt --full

The commands are forked from a server that has done the imports, and run the program's `main()`. Prints one JSON object
with the rounds, the kills and stops by command, the runs that ended by themselves, and those that met a full disk.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recycle_cli.store import Store
from tests.commands import Commands, Done, Running
from tests.conftest import save_tiny, tiny_config
from tests.contents import contents
from tests.records import records, write_csv

OPTIONS = ("--cut", 2, "--max-length", 24, "--batch-tokens", 1, "--segment-bytes", 20_000)
"""Options that put each sample in a batch of its own, so that its rows do not depend on the others in the batch."""

MAINTENANCE = {"gc": ("store", "gc", "--damaged"), "repair": ("store", "verify", "--repair")}
BESIDE = ([], ["gc"], ["repair"], ["gc", "repair"])

FIRST_SECONDS = 1.0
STOP_EVERY = 5
SPARE = 300_000
"""Most bytes left free on a full disk: less than half of what a round writes."""

FULL = "disk is full"
WAIT = "wait for it"
REPAIR = "recycle store verify"


class Work:
    """A model, two overlapping corpora `a` and `b`, and the contents of their stores after undisturbed runs."""

    def __init__(self, recycle: Commands, folder: Path) -> None:
        self.recycle = recycle
        self.model = save_tiny(folder / "model", tiny_config(), bare=True)
        texts = records(450, longest=20)
        parts = {"a": texts[:300], "b": texts[150:]}
        self.corpora = {name: write_csv(folder / f"{name}.csv", part) for name, part in parts.items()}
        self.expected: dict[str, dict[bytes, Any]] = {}
        for name in parts:
            recycle.json(*self.command(name, folder / name))
            self.expected[name] = contents(folder / name)
        self.whole = self.expected["a"] | self.expected["b"]

    def command(self, name: str, store: Path) -> tuple[object, ...]:
        """Arguments of a writer (`a`, `b`) or of a maintenance command."""
        if name in MAINTENANCE:
            return (*MAINTENANCE[name], store)
        return ("precompute", self.corpora[name], store, "--model", self.model, *OPTIONS)


class Trial:
    """Disturbs stores round after round, and knows what they must hold."""

    def __init__(self, work: Work, folder: Path, *, seed: int, full: bool = False) -> None:
        self.recycle, self.expected, self.whole = work.recycle, work.expected, work.whole
        self.work, self.folder, self.full = work, folder, full
        self.random = random.Random(seed)
        # Seconds that each command has taken so far, so that kills spread over its whole run on any machine.
        self.seconds = dict.fromkeys(["a", "b", *MAINTENANCE], FIRST_SECONDS)
        self.counts: Counter[str] = Counter()
        self.held: set[bytes] = set()
        self.begin()

    def begin(self) -> None:
        """Start a new store."""
        self.counts["stores"] += 1
        self.store = self.folder / f"{self.counts['stores']}.zarr"
        self.held = set()

    def command(self, name: str) -> tuple[object, ...]:
        return self.work.command(name, self.store)

    def run(self, kills: int) -> dict[str, int]:
        """Run rounds until so many processes have been killed. Returns the counts as plain data."""
        while self.counts["killed"] < kills:
            self.counts["rounds"] += 1
            stop = self.counts["rounds"] % STOP_EVERY == 0
            with self.crowded():
                damaged = self.stop_round() if stop else self.kill_round()
                self.check(damaged=damaged)
            if len(self.held) == len(self.whole):
                self.finish()
                self.begin()
        self.finish()
        return dict(sorted(self.counts.items()))

    def kill_round(self) -> bool:
        """Start two writers and perhaps maintenance; kill each at random. Returns whether a segment was damaged."""
        beside = self.random.choice(BESIDE) if (self.store / "zarr.json").exists() else []
        damaged = "repair" in beside and self.damage()
        started = time.monotonic()
        running = {name: self.recycle.start(*self.command(name)) for name in ("a", "b", *beside)}
        instants = {name: started + self.random.uniform(0, self.seconds[name]) for name in running}
        for name in sorted(running, key=instants.__getitem__):
            pause_until(instants[name], running[name])
            running[name].send(signal.SIGKILL)
        for name, process in running.items():
            self.ended(name, process.wait(), damaged=damaged)
        return damaged

    def stop_round(self) -> bool:
        """Stop a writer or a gc halfway, let others write, collect and read, and then continue it to its end."""
        name = self.random.choice(["a", "gc"])
        if name == "gc" and not (self.store / "zarr.json").exists():
            return False
        stopped = self.recycle.start(*self.command(name))
        pause_until(time.monotonic() + self.random.uniform(0, self.seconds[name]), stopped)
        stopped.send(signal.SIGSTOP)
        self.counts[f"stopped {name}"] += not stopped.ended
        self.read()
        for other in ("b", "gc", "b"):
            self.ended(other, self.recycle(*self.command(other)), damaged=False)
        self.read()
        stopped.send(signal.SIGCONT)
        self.ended(name, stopped.wait(), damaged=False)
        return False

    def ended(self, name: str, done: Done, *, damaged: bool) -> None:
        """Count how a command ended. It may fail only because of what was done to the store."""
        assert "Traceback" not in done.err, done.err
        killed = done.code == -signal.SIGKILL
        excuses = [WAIT] * (name in MAINTENANCE) + [FULL] * self.full + [REPAIR] * damaged
        assert killed or done.code == 0 or any(excuse in done.err for excuse in excuses), (name, done)
        self.counts["killed" if killed else "ended"] += 1
        self.counts[f"killed {name}"] += killed
        self.counts["full"] += FULL in done.err
        self.seconds[name] *= 1.1 if killed else 0.8

    def check(self, *, damaged: bool) -> None:
        """Check everything that must hold after a round."""
        if not (self.store / "zarr.json").exists():
            assert not self.held, "the root of a store with samples is gone"
            return
        if damaged:
            self.recycle.json(*self.command("repair"))
        verified = self.recycle("store", "verify", self.store, "--json")
        assert verified.code == 0, verified
        assert verified.json["damaged"] == []
        assert self.recycle.json("store", "info", self.store)["writers"] == [], "a dead writer counts as alive"
        self.held = self.read()

    def read(self) -> set[bytes]:
        """Assert that keys are unique and rows are right, and that everything ever seen sealed is there."""
        if not (self.store / "zarr.json").exists():
            return set()
        store = Store.open(str(self.store))
        positions = store.positions()
        keys = [row.tobytes() for row in store.keys(positions)]
        assert len(set(keys)) == len(keys), "a sample is counted twice"
        assert self.held <= set(keys), "a sealed sample is gone"
        for key, position in zip(keys, positions.tolist(), strict=True):
            rows = {cut: store.read(cut, position).tobytes() for cut in store.recipe.cuts}
            assert rows == self.whole[key][1], "a sample has other rows"
        return set(keys)

    def finish(self) -> None:
        """Run both commands to their end, and assert that the store equals that of an undisturbed run."""
        for name in ("a", "b"):
            reused = len(self.held & self.expected[name].keys())
            done = self.recycle.json(*self.command(name))
            assert done["reused_samples"] == reused, done
            assert done["new_samples"] == len(self.expected[name]) - reused, done
            self.held |= self.expected[name].keys()
        self.recycle.json(*self.command("gc"))
        assert contents(self.store) == self.whole
        assert not [entry for entry in (self.store / "tmp").iterdir() if entry.is_dir()], "a draft was left behind"

    def damage(self) -> bool:
        """Flip a bit of a segment and no longer expect the samples that only it held. Returns whether there was one."""
        folders = [path for path in self.store.glob("segments/*") if path.is_dir()]
        if not folders:
            return False
        victim = self.random.choice(sorted(folders))
        segments = Store.open(str(self.store)).segments
        keys = {segment.id: {row.tobytes() for row in segment.keys} for segment in segments}
        others = set().union(*(held for name, held in keys.items() if name != victim.name))
        self.held -= keys[victim.name] - others
        flip_a_bit(self.random.choice(sorted(path for path in victim.rglob("*") if path.is_file())), self.random)
        return True

    @contextmanager
    def crowded(self) -> Iterator[None]:
        """Leave almost no space on the disk inside the block, if `--full` is given."""
        ballast = self.folder / "ballast"
        if self.full:
            spare = self.random.randrange(SPARE)
            with ballast.open("wb") as file:
                free = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize
                os.posix_fallocate(file.fileno(), 0, max(1, free - spare))
        try:
            yield
        finally:
            ballast.unlink(missing_ok=True)


def pause_until(instant: float, process: Running) -> None:
    """Wait until the instant, or until the process ends by itself."""
    while time.monotonic() < instant and not process.ended:
        time.sleep(0.002)


def flip_a_bit(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path, help="where the stores lie; else a temporary folder")
    parser.add_argument("--full", action="store_true", help="fill the disk of that folder, but for a little")
    options = parser.parse_args()
    commands = Commands()
    with tempfile.TemporaryDirectory() as inputs, tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(f"seed {options.seed}, in {folder}", file=sys.stderr)
        trial = Trial(Work(commands, Path(inputs)), Path(folder), seed=options.seed, full=options.full)
        print(json.dumps(trial.run(options.kills)))
    commands.close()


if __name__ == "__main__":
    main()
