"""Where the time of a small `recycle precompute` goes: imports, loading the model, the model itself, and the rest.

    python experiments/overhead.py CORPUS --limit 100 --model all-MiniLM-L6-v2 --max-length 256

The command's work is done in a process of its own, several times (`--repetitions`), each into an empty store. Loading
is reading the weights and the tokenizer; the self-check of a split, which runs the model on three samples of a few
tokens, counts as the rest, and so do reading, tokenising, hashing, rounding, writing and syncing. Wall seconds beside
the processor's: on a busy machine only the latter tell. Prints medians, and the parts of the rest.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

Spent = dict[str, tuple[float, float]]
"""Wall and processor seconds by part."""


class Watch:
    """Adds up what parts took; a part within another counts for both."""

    def __init__(self) -> None:
        self.spent: Spent = {}

    def now(self) -> tuple[float, float]:
        """Wall and processor seconds so far."""
        return time.perf_counter(), time.process_time()

    def add(self, part: str, since: tuple[float, float]) -> None:
        """A part that began then and ends now."""
        wall, processor = self.spent.get(part, (0.0, 0.0))
        now = self.now()
        self.spent[part] = (wall + now[0] - since[0], processor + now[1] - since[1])

    def timing(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added to a part."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            since = self.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.add(part, since)

        return timed


def parts() -> dict[str, tuple[Any, str]]:
    """What is watched, each an attribute of a module or class; importing them imports all that the command does."""
    from recycle_cli.models.text import split
    from recycle_cli.models.text.engine import Engine
    from recycle_cli.verbs import precompute as work

    return {
        "model": (Engine, "trunk"),
        "loading": (work.NamedModel, "open"),
        "self-check": (split, "checked"),
        "which weights are whose": (split, "ownership"),
        "digests": (split, "_recipe"),
        "filling, the model included": (work, "fill"),
    }


def fill(options: argparse.Namespace, store: Path) -> None:
    """What `recycle precompute` does."""
    from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings
    from recycle_cli.verbs import precompute as work

    work.precompute(
        CorpusSettings((options.corpus,), limit=options.limit),
        str(store),
        ModelSettings(name=options.model, max_length=options.max_length),
        PrecomputeSettings(),
    )


def rest(spent: Spent) -> tuple[float, float]:
    """Wall and processor seconds that are neither importing nor loading nor the model."""
    (wall, processor), *others = (spent[part] for part in ("all but imports", "loading", "model"))
    return wall - sum(other[0] for other in others), processor - sum(other[1] for other in others)


def once(options: argparse.Namespace) -> Spent:
    """One precompute in this process, which has imported nothing yet."""
    watch = Watch()
    since = watch.now()
    targets = parts()
    watch.add("imports", since)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        for part, (owner, name) in targets.items():
            stack.enter_context(patch.object(owner, name, watch.timing(part, getattr(owner, name))))
        since = watch.now()
        fill(options, Path(folder, "acts.zarr"))
        watch.add("all but imports", since)
    return {**watch.spent, "rest": rest(watch.spent)}


def main() -> None:
    """Run several processes one after another and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--once", action="store_true", help="one precompute, as JSON")
    options = parser.parse_args()
    if options.once:
        print(json.dumps(once(options)))
        return
    runs: list[Spent] = []
    for _ in range(options.repetitions):
        done = subprocess.run([sys.executable, *sys.argv, "--once"], stdout=subprocess.PIPE, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{'':30}{'wall s':>8}{'processor s':>13}")
    for part in runs[0]:
        wall, processor = (median(run[part][at] for run in runs) for at in (0, 1))
        print(f"{part:30}{wall:8.2f}{processor:13.2f}")


if __name__ == "__main__":
    main()
