"""How time and memory grow with the corpus, the cut and the length of the texts.

    python experiments/cost_curves.py WORK_FOLDER --json curves.json --plot curves.png

Each point is `recycle precompute` and one epoch of `recycle finetune` from that store, run as commands of their own, on
invented texts and a BERT of random weights (6 blocks, 128 wide). Seconds are those that the commands report, without
imports and loading the model; memory is the most that the process held, the mapped store included. The slope is that
of the logarithms over the upper half of a curve: 1 is linear, 0 is flat.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

from recycle_cli.bench.synthetic import BLOCKS, WORDS, write_corpus, write_model

SIZES = (100, 1_000, 10_000, 100_000)
LENGTHS = (8, 16, 32, 64, 128, 254)
RECORDS = 2_000
MIDDLE = 3

LABELS = {
    "precompute_seconds": "precompute",
    "epoch_seconds": "an epoch from the store",
    "precompute_memory": "memory of precompute",
    "finetune_memory": "memory of finetune",
    "bytes": "the store on disk",
}

Point = dict[str, Any]


def measured(arguments: Sequence[str]) -> tuple[dict[str, Any], int]:
    """What a command reports as JSON, and the most memory its process held, in bytes."""
    command = [sys.executable, "-m", "recycle_cli", *arguments, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        report = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return json.loads(report), usage.ru_maxrss * 1024


def point(work: Path, model: Path, corpus: Path, cut: int, at: int) -> Point:
    """One store filled and one epoch trained from it; `at` is its place on the curve."""
    store = work / f"{corpus.stem}-{cut}.zarr"
    rmtree(store, ignore_errors=True)  # of a run that was stopped: what it holds would not be measured
    filled, filling = measured(["precompute", str(corpus), str(store), "--model", str(model), "--cut", str(cut)])
    run = ["finetune", str(corpus), str(store), "--output", str(work / "run"), "--overwrite", "--epochs", "1"]
    trained, training = measured(run)
    rmtree(store)
    found = {
        "at": at,
        "precompute_seconds": filled["seconds"],
        "epoch_seconds": trained["epoch_seconds"][0],
        "bytes": filled["bytes"],
        "precompute_memory": filling,
        "finetune_memory": training,
    }
    print(json.dumps({"corpus": corpus.stem, "cut": cut, **found}), flush=True)
    return found


def of_length(path: Path, words: int, records: int) -> Path:
    """Texts of one length."""
    draw = random.Random(words)
    with path.open("w", encoding="utf-8") as file:
        for number in range(records):
            file.write(json.dumps({"text": " ".join(draw.choices(WORDS, k=words)), "label": str(number % 2)}) + "\n")
    return path


def curves(work: Path, sizes: Sequence[int], records: int) -> dict[str, list[Point]]:
    """The three curves; the corpus grows at the middle cut, cut and length change at one number of records."""
    model = write_model(work / "model", 0)
    corpora = {size: write_corpus(work / f"texts-{size}.jsonl", size, 0) for size in (*sizes, records)}
    lengths = {words: of_length(work / f"words-{words}.jsonl", words, records) for words in LENGTHS}
    return {
        "records": [point(work, model, corpora[size], MIDDLE, size) for size in sizes],
        "cut, blocks": [point(work, model, corpora[records], cut, cut) for cut in range(1, BLOCKS + 1)],
        "tokens a text": [point(work, model, path, MIDDLE, words + 2) for words, path in lengths.items()],
    }


def slope(points: Sequence[Point], name: str) -> float:
    """Of the logarithms, from the middle of the curve to its end."""
    low, high = points[len(points) // 2 - 1], points[-1]
    return math.log(high[name] / low[name]) / math.log(high["at"] / low["at"])


def draw(found: dict[str, list[Point]], path: Path) -> None:
    """Time above, memory below, one column a curve."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(12, 7), layout="constrained")
    panels = picture.subplots(2, len(found))
    for column, (name, points) in enumerate(found.items()):
        at = [one["at"] for one in points]
        rows = (("seconds", 1.0, ("precompute_seconds", "epoch_seconds")),)
        rows += (("MiB", 2**20, ("precompute_memory", "finetune_memory", "bytes")),)
        for axes, (unit, scale, names) in zip(panels[:, column], rows, strict=True):
            for key in names:
                axes.plot(at, [one[key] / scale for one in points], "o-", label=LABELS[key])
            if name != "cut, blocks":
                axes.set_xscale("log")
                axes.set_yscale("log")
            else:
                axes.set_ylim(0)
            axes.set_xlabel(name)
            axes.set_ylabel(unit)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(fontsize=8, frameon=False)
    picture.savefig(path, dpi=120)


def main() -> None:
    """Measure, print each point and then the slopes, keep the points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--records", type=int, default=RECORDS, help="of the curves that do not grow in records")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    found = curves(options.work, options.sizes, options.records)
    for name, points in found.items():
        for key in ("precompute_seconds", "epoch_seconds", "bytes", "precompute_memory", "finetune_memory"):
            print(f"{name}: {key} slope {slope(points, key):.2f}, {points[0][key]:,.4g} to {points[-1][key]:,.4g}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if options.plot:
        draw(found, options.plot)


if __name__ == "__main__":
    main()
