"""Kill writers, collectors and repairers at random instants and check the store after each.

    python tests/store/crash.py --kills 200 [--folder DIR] [--seed N]

Each round starts two writers of overlapping samples, and now and then a `gc` or a `verify --repair` of a segment
damaged on purpose beside them, kills all with SIGKILL after a time drawn uniformly, and checks: the store opens,
`verify` is clean, every sample a writer had reported as sealed is there with the right rows, none is counted twice,
nothing is half visible. Point `--folder` at a small tmpfs to have the disk fill up as well. Prints one JSON object.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from store.corpora import Corpus  # noqa: E402

from recycle_cli.errors import StoreError  # noqa: E402
from recycle_cli.store import Store, gc, info, verify  # noqa: E402

CORPUS = Corpus("int8", shape=(64,), longest=40)
LONGEST = 0.8


def write(path: str, first: int) -> None:
    """Append samples from number `first` on, and report each sealed range on a line."""
    store = Store.create_or_open(path, CORPUS.recipe, {})
    with store.writer(codec=random.choice(["none", "lz4"])) as writer:
        for start in range(first, first + 100_000, 20):
            CORPUS.append(writer, range(start, start + 20))
            writer.seal()
            print(start, flush=True)


def collect(path: str, _: int) -> None:
    while True:
        gc(path, damaged=True, segment_bytes=1 << 20)


def repair(path: str, _: int) -> None:
    verify(path, repair=True, workers=2)


WORK = {"write": write, "collect": collect, "repair": repair}


def work(name: str, path: str, first: int) -> None:
    print("ready", flush=True)
    try:
        WORK[name](path, first)
    except StoreError as error:
        # A full disk, a maintenance already at work, or a segment that gc took while we looked: said in one line.
        print(error, file=sys.stderr)


class Trial:
    """A store that is hurt round after round, and what must be in it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.path = str(folder / "crash.zarr")
        self.random = random.Random(seed)
        self.full = False
        self.sealed: set[int] = set()
        self.rounds = {"killed": 0, "finished": 0, "full": 0}

    def round(self) -> None:
        names = ["write", "write", *self.random.choices([[], ["collect"], ["repair"]], [2, 1, 1])[0]]
        if "repair" in names:
            self._damage()
        base = max(self.sealed, default=-20) // 20 * 20
        firsts = [max(0, base - 200), max(0, base - 100), 0]
        processes = [
            subprocess.Popen(
                [sys.executable, str(HERE), "--work", name, "--folder", self.path, "--first", str(first)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name, first in zip(names, firsts, strict=False)
        ]
        for process in processes:  # the clock starts once all have loaded
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        time.sleep(self.random.uniform(0, LONGEST))
        for process in processes:
            self.rounds["killed" if process.poll() is None else "finished"] += 1
            process.kill()
        for process in processes:
            out, error = process.communicate()
            assert "Traceback" not in error, error
            self.full |= "disk is full" in error
            self.rounds["full"] += "disk is full" in error
            for line in out.split("\n")[:-1]:
                self.sealed.update(range(int(line), int(line) + 20))
        self.check(damaged="repair" in names)

    def check(self, *, damaged: bool) -> None:
        if not (Path(self.path) / "zarr.json").exists():
            assert not self.sealed, "the root of a store with samples is gone"
            return
        if damaged:
            verify(self.path, repair=True)
        store = Store.open(self.path)
        found = verify(self.path)
        assert found["damaged"] == [], found["damaged"]
        CORPUS.check(store, sorted(self.sealed))
        described = info(self.path)
        assert described["writers"] == [], "a dead writer counts as alive"
        keys = {row.tobytes() for row in store.keys(store.positions())}
        assert len(keys) == len(store), "a sample is counted twice"

    def finish(self) -> None:
        """The next run goes on: collect what is left over, and write once more."""
        Store.create_or_open(self.path, CORPUS.recipe, {})
        gc(self.path, damaged=True)
        assert info(self.path)["leftovers"] == []
        assert info(self.path)["duplicates"] == 0
        self.check(damaged=False)

    def start_over(self) -> None:
        """A full disk has been survived: make room, as its owner would."""
        shutil.rmtree(self.path)
        self.sealed.clear()
        self.full = False

    def _damage(self) -> None:
        """Flip a bit of a segment, and take what only that segment held off the list."""
        segments = sorted(path for path in Path(self.path, "segments").glob("2*") if path.is_dir())
        if not segments:
            return
        victim = self.random.choice(segments)
        store = Store.open(self.path)
        (held,) = [segment for segment in store.segments if segment.id == victim.name]
        keys = {bytes(row) for row in held.keys}
        others = {bytes(row) for segment in store.segments if segment is not held for row in segment.keys}
        lost = keys - others
        numbers = sorted(self.sealed)
        own, _ = CORPUS.keys(numbers)
        self.sealed = {number for number, key in zip(numbers, own, strict=True) if bytes(key) not in lost}
        values = victim / "cuts/2/values/c.0.0"
        content = bytearray(values.read_bytes())
        content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        values.write_bytes(content)


def run(kills: int, seed: int, folder: Path) -> dict[str, int]:
    """Rounds until `kills` processes have been killed: what happened, as plain data."""
    trial = Trial(folder, seed)
    rounds = 0
    while trial.rounds["killed"] < kills:
        trial.round()
        rounds += 1
        if trial.full:
            trial.start_over()
        elif sum(path.is_dir() for path in Path(trial.path, "segments").glob("2*")) > 300:
            trial.finish()
    trial.finish()
    return {"rounds": rounds, **trial.rounds, "samples": len(trial.sealed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--work", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, str(options.folder), options.first)
        return
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    print(f"seed {options.seed}, in {folder}", file=sys.stderr)
    print(json.dumps(run(options.kills, options.seed, folder)))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
