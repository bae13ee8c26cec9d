"""How near `recycle plan` comes to what precompute and finetune then take.

    python experiments/forecast.py WORK_FOLDER train.jsonl --max-length 256 --json forecast.json

For each cut the plan is made right before one `recycle precompute` and one epoch of `recycle finetune`, all of them
commands of their own, so that a machine that changes its pace within the hour changes it for both. A ratio is forecast
over actual; 1 is perfect. Bytes are those of all files of the store, seconds those that the commands report: without
imports and loading the model. The corpus needs labels.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from statistics import median
from typing import Any

CUTS = ("33%", "50%", "100%")
FIGURES = ("bytes", "fill_seconds", "epoch_seconds")

Point = dict[str, dict[str, float]]
"""Forecast and actual of each figure."""


def reported(*arguments: str | Path) -> dict[str, Any]:
    """What a command reports as JSON."""
    command = [sys.executable, "-m", "recycle_cli", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stdout.decode()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def point(work: Path, options: argparse.Namespace, cut: str) -> Point:
    """One cut planned, then done."""
    store, corpus = work / "acts.zarr", options.corpus
    rmtree(store, ignore_errors=True)  # of a run that was stopped: what it holds would not be measured
    limit = () if options.limit is None else ("--limit", options.limit)
    model = ("--model", options.model, *(() if options.max_length is None else ("--max-length", options.max_length)))
    (plan,) = reported("plan", corpus, *model, *limit, "--cut", cut, "--scratch", work)["cuts"]
    filled = reported("precompute", corpus, store, *model, *limit, "--cut", cut)
    written = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    run = ("--output", work / "run", "--overwrite", "--epochs", 1)
    trained = reported("finetune", corpus, store, *limit, *run)
    rmtree(store)
    return {
        "bytes": {"forecast": plan["bytes"][filled["dtype"]], "actual": written},
        "fill_seconds": {"forecast": plan["fill_seconds"], "actual": filled["seconds"]},
        "epoch_seconds": {"forecast": plan["store_epoch_seconds"], "actual": trained["epoch_seconds"][0]},
    }


def show(cut: str, figure: str, points: Sequence[Point]) -> None:
    """The median ratio of a cut's figure, and how far it spread."""
    pairs = [one[figure] for one in points]
    ratios = [pair["forecast"] / pair["actual"] for pair in pairs]
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    actual = median(pair["actual"] for pair in pairs)
    print(f"{cut:>5} {figure:14} {median(ratios):.3f} ({spread}) of {actual:,.4g}", flush=True)


def main() -> None:
    """Plan and do, cut after cut and again; print the ratios, keep the points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("corpus")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--cut", action="append", help="may repeat; else 33%%, 50%% and 100%%")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    cuts = options.cut or CUTS
    found: dict[str, list[Point]] = {cut: [] for cut in cuts}
    for _ in range(options.repetitions):
        for cut in cuts:
            found[cut].append(point(options.work, options, cut))
            for figure in FIGURES:
                show(cut, figure, found[cut][-1:])
    print("medians:")
    for cut in cuts:
        for figure in FIGURES:
            show(cut, figure, found[cut])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
