"""What votes on freezing change if the ranks' samples are skewed by label.

    python experiments/votes.py train.jsonl dev.jsonl --limit 384 --epochs 3

Two ranks train with AutoFreeze. Each batch is divided by length, as always, or by label: sorted by their labels, the
first half of its samples goes to rank 0. Then no rank sees what the other sees, and the gradients of each are of other
classes. Prints one JSON object for each division and way to decide: the blocks that froze and when, how often a rank
chose something else than what was done, what the votes weighed, and the figures on the second file.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from recycle_cli.batches import Indices, Shares
from recycle_cli.bench.ranks import AGENT
from recycle_cli.settings import MINILM, CorpusSettings, FreezeSettings, Job, ModelSettings, TrainingSettings
from recycle_cli.verbs.finetune import finetune

WAYS = ("mean", "weighted", "weighted-labels")


def divide_by_label(labels: Indices) -> None:
    """Let ranks have samples by their labels, of the training data of this process."""
    usual = Shares.of

    def of(self: Shares, members: Indices) -> list[Indices]:
        if len(self.lengths) != len(labels):  # the evaluation's
            return usual(self, members)
        return list(np.array_split(members[np.argsort(labels[members], kind="stable")], self.count))

    Shares.of = of  # type: ignore[method-assign]


def train(asked: argparse.Namespace, votes: str, division: str, output: str) -> None:
    """One rank's part of a training."""
    lines = Path(asked.train).read_text(encoding="utf-8").splitlines()[: asked.limit]
    if division == "label":
        _, labels = np.unique([str(json.loads(line)["label"]) for line in lines], return_inverse=True)
        divide_by_label(labels)
    data, judged = (CorpusSettings((one,), limit=asked.limit) for one in (asked.train, asked.dev))
    settings = TrainingSettings(
        epochs=asked.epochs,
        batch_size=asked.batch_size,
        learning_rate=asked.learning_rate,
        freezing=FreezeSettings("autofreeze", cache="never", votes=votes),  # type: ignore[arg-type]
    )
    job = Job(data, output, None, judged, cut="0", model_named=True, tensorboard=False)
    finetune(job, ModelSettings(asked.model, None, asked.max_length), settings)


def told(run: Path) -> dict[str, Any]:
    """What a training has decided."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    decisions = [line for line in lines if "freezing" in line]
    votes = [one["freezing"]["votes"] for one in decisions if "votes" in one["freezing"]]
    about = json.loads((run / "recycle.json").read_text(encoding="utf-8"))
    return {
        "frozen": [(one["step"], one["freezing"]["chosen"]) for one in decisions if one["freezing"]["chosen"]],
        "ballots": sum(any(vote["chosen"] for vote in one) for one in votes),
        "disagreements": sum(one[0]["chosen"] != one[1]["chosen"] for one in votes),
        "weights_of_rank_0": sorted({round(one[0]["weight"], 3) for one in votes}),
        "metrics": about["report"]["metrics"],
    }


def main() -> None:
    """Measure and print; or be one rank of a training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("dev")
    parser.add_argument("--limit", type=int, default=384)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--model", default=MINILM)
    parser.add_argument("--rank-of", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rank_of is not None:
        train(asked, *asked.rank_of)
        return
    with TemporaryDirectory() as folder:
        for division in ("length", "label"):
            for votes in WAYS:
                output = Path(folder, f"{division}-{votes}")
                store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
                command = [sys.executable, *sys.argv, "--rank-of", votes, division, str(output)]
                numbers = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), **AGENT}
                ranks = [
                    subprocess.Popen(command, env={**os.environ, **numbers, "RANK": str(rank), "LOCAL_RANK": str(rank)})
                    for rank in (0, 1)
                ]
                codes = [one.wait() for one in ranks]
                if any(codes):
                    sys.exit("a training has failed")
                print(json.dumps({"divided_by": division, "votes": votes, **told(output)}), flush=True)


if __name__ == "__main__":
    main()
