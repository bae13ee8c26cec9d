"""Bench trainings by several processes: what they send one another, and how long a step takes."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from recycle_cli.bench.layout import PARALLEL
from recycle_cli.bench.subject import CLASSES, WHOLE, Subject, discard
from recycle_cli.bench.timing import Run, Runner, Unavailable
from recycle_cli.errors import RecycleError
from recycle_cli.runtime.threads import as_it_comes, usable_cores

AGENT = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
"""Says that whoever starts the ranks keeps what they meet by, as torchrun does."""


def runners(subject: Subject) -> dict[str, Runner | Unavailable]:
    """Runners of `recycle finetune` itself, on so many ranks: full, frozen without a store, from the store, and with
    layers that freeze and rows that are kept."""
    names = [f"ranks.{count}.{way}" for count in subject.settings.ranks for way in PARALLEL]
    if subject.images or subject.settings.samples.task is not None:
        return dict.fromkeys(names, Unavailable("several ranks are measured on the classification of texts alone"))
    counts = subject.settings.ranks
    return {f"ranks.{count}.{way}": partial(_run, subject, count, way) for count in counts for way in PARALLEL}


@dataclass(frozen=True)
class Launched:
    """How processes are started and meet.

    before   words before the command of each rank, such as those that run it in a network of its own
    address  the name or address by which all ranks reach this process
    """

    before: Sequence[Sequence[str]] = ()
    address: str = "127.0.0.1"
    environment: Mapping[str, str] = field(default_factory=dict)


def launch(arguments: Sequence[str], count: int, threads: int, way: Launched | None = None) -> dict[str, Any]:
    """Run `recycle` with these arguments on so many ranks, a single one without a launcher's variables; returns the
    report of the first. Raises RecycleError with what they said if one fails."""
    way = way or Launched()
    store = TCPStore(way.address, 0, is_master=True, wait_for_workers=False) if count > 1 else None
    command = [sys.executable, "-m", "recycle_cli", *arguments, "--json"]
    processes = []
    for rank in range(count):
        own = {**as_it_comes(), "OMP_NUM_THREADS": str(threads), **way.environment}
        if store is not None:
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": store.port}
            own |= {name: str(value) for name, value in numbers.items()}
            own |= {"MASTER_ADDR": way.address, **AGENT}
        words = [*(way.before[rank] if way.before else ()), *command]
        processes.append(subprocess.Popen(words, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        said = [one.communicate() for one in processes]
    finally:
        for one in processes:
            one.kill()
    if any(one.returncode for one in processes):
        lines = [line for _, errors in said for line in errors.splitlines() if line.startswith("recycle: ")]
        raise RecycleError(f"a training that was to be measured has failed: {' '.join(lines) or 'it said nothing'}")
    report: dict[str, Any] = json.loads(said[0][0])
    return report


def arguments_of(way: str, data: str, subject: Subject) -> list[str]:
    """The words of one way to train: DATA and STORE, the cut, and what freezes."""
    cut = subject.resolve(subject.settings.cuts[0])
    words = [data, "--model", subject.model.name, "--cut", WHOLE if way in ("full", "kept") else cut]
    if subject.model.max_length is not None:
        words += ["--max-length", str(subject.model.max_length)]
    if way == "store":
        words += ["--store", subject.store.path]
    if way == "kept":
        words += ["--freeze", subject.settings.rule, "--freeze-cache", "always"]
    settings = subject.settings
    words += ["--epochs", str(settings.epochs), "--batch-size", str(settings.batch_size), "--seed", str(settings.seed)]
    return [*words, "--device", subject.model.device, "--no-tensorboard", "--overwrite"]


def figures_of(run: Path, report: Mapping[str, Any]) -> tuple[float, int, dict[str, float]]:
    """The seconds of a training's epochs, its steps, and what a step has sent at the mean."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    sent = ("gradient_bytes", "gradient_seconds", "output_bytes")
    return (
        sum(report["epoch_seconds"]),
        len(steps),
        {name: sum(line.get(name, 0) for line in steps) / len(steps) for name in sent},
    )


def write_data(subject: Subject, path: Path) -> None:
    """Write the first texts, as many as `--batches` batches have, with labels that are made up."""
    count = subject.settings.batches * subject.settings.batch_size
    with path.open("w", encoding="utf-8") as file:
        for number, example in enumerate(islice(subject.records(), count)):
            record = {**example.samples[0].fields, "label": CLASSES[number % len(CLASSES)]}
            file.write(json.dumps(record) + "\n")


def _run(subject: Subject, count: int, way: str, repetition: int) -> Run:
    folder = subject.folder()
    data, run = folder / "data.jsonl", folder / "run"
    write_data(subject, data)
    threads = max(1, usable_cores() // max(subject.settings.ranks))
    report = launch(["finetune", *arguments_of(way, str(data), subject), "--output", str(run)], count, threads)
    seconds, steps, sent = figures_of(run, report)
    discard(folder)
    return Run(seconds, subject.settings.epochs * int(report["samples"]), steps=steps, figures=sent)
