"""A RUN: an ordinary checkpoint, beside it what recycle knows of its making, and while it trains what it resumes from.

`recycle.json` is written last: where it is, the RUN is finished and whole.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from recycle_cli.errors import StorageError, StoreError, UsageError
from recycle_cli.runtime.random_generators import Randomness

ABOUT = "recycle.json"
LOG = "metrics.jsonl"
CHECKPOINT = "checkpoint"
OWN = (ABOUT, LOG, CHECKPOINT)
"""Names by which a folder is told to be a RUN: no folder within --output may have one."""

RUN_VERSION = 1

Named = Mapping[str, torch.Tensor]


@dataclass
class Progress:
    """How far a training is: the next batch of the next epoch, and what was best so far. Times in seconds.

    `lines` counts what the log holds by then, so that a resumed run drops what came after; `seen` the samples it learnt
    from, once for each time.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    epoch_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0
    best: dict[str, float] | None = None
    best_epoch: int = 0
    stale_evaluations: int = 0
    lines: int = 0
    seen: int = 0


def claim(output: str, *, overwrite: bool, resume: bool) -> Path:
    """The RUN's folder, found usable and left as it is; `clear` makes it.

    Raises UsageError where it holds what must not be lost, StorageError where it cannot be written.
    """
    folder = Path(output)
    finished, unfinished = is_finished(folder), (folder / CHECKPOINT).exists()
    if finished and not overwrite:
        raise UsageError(f"{output} holds a finished run; add --overwrite, or choose another --output")
    if unfinished and not finished and not (overwrite or resume):
        raise UsageError(f"{output} holds an unfinished run; add --resume to go on with it, or --overwrite")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{output} is a file; --output must name a folder")
    if folder.exists() and not (finished or unfinished) and any(entry.name != LOG for entry in folder.iterdir()):
        raise UsageError(f"{output} is not empty and is no run; choose another --output")
    if resume and finished:
        raise UsageError(f"{output} is finished; there is nothing to resume")
    _check_writable(folder)
    return folder


def _check_writable(folder: Path) -> None:
    """Make a folder where the RUN will be, or inside it where it is, and take it away again."""
    above = folder
    while not above.exists():
        above = above.parent
    try:
        Path(tempfile.mkdtemp(prefix=".writable", dir=above)).rmdir()
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error.strerror}); choose another --output") from error


def is_run(folder: str | Path) -> bool:
    """Whether a folder holds a RUN, finished or not."""
    return is_finished(folder) or Path(folder, CHECKPOINT).exists()


def is_finished(folder: str | Path) -> bool:
    """Whether a folder holds a RUN that is finished and whole."""
    return Path(folder, ABOUT).exists()


def clear(folder: Path) -> None:
    """Empty a RUN's folder of an earlier run, its mark of being finished first, and mark it as unfinished."""
    (folder / CHECKPOINT).mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).unlink(missing_ok=True)
    stale = [entry for entry in folder.iterdir() if entry.name != CHECKPOINT]
    for entry in [*stale, *(folder / CHECKPOINT).iterdir()]:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, str]) -> None:
    """Write tensors and notes as one safetensors file, in one step. Raises StorageError where the disk is full."""
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial, dict(notes))
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written ({error}); free some space, then --resume") from error


def save_progress(
    folder: Path,
    progress: Progress,
    weights: Named,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    randomness: Randomness,
    settings: Mapping[str, Any],
) -> None:
    """Keep all that an exact resume needs: weights, optimizer moments, loss scale, random states, place in the data."""
    tensors = {f"random.{name}": state for name, state in randomness.states.items()}
    for name, weight in weights.items():
        tensors[f"weights.{name}"] = weight
        for moment, value in optimizer.state.get(weight, {}).items():
            tensors[f"optimizer.{moment}.{name}"] = value
    notes = {
        "progress": json.dumps(asdict(progress)),
        "settings": json.dumps(settings, sort_keys=True),
        "scaler": json.dumps(scaler.state_dict()),
    }
    save_tensors(folder / CHECKPOINT / "state.safetensors", tensors, notes)


def load_progress(
    folder: Path,
    weights: Named,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    randomness: Randomness,
    settings: Mapping[str, Any],
) -> Progress:
    """Put a training back where it was. Raises UsageError naming the first setting that is not as it was."""
    path = folder / CHECKPOINT / "state.safetensors"
    if not path.exists():
        return Progress()
    with _opened(path) as file:
        notes = file.metadata()
        _same_settings(json.loads(notes["settings"]), settings)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(file.get_tensor(f"weights.{name}"))
        state: dict[torch.Tensor, dict[str, torch.Tensor]] = {}
        for key in file.keys():  # noqa: SIM118 - safe_open is no mapping
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                moment, _, name = rest.partition(".")
                state.setdefault(weights[name], {})[moment] = file.get_tensor(key)
        _restore_optimizer(optimizer, state)
        scaler.load_state_dict(json.loads(notes["scaler"]))
        kept = [name for name in file.keys() if name.startswith("random.")]  # noqa: SIM118
        randomness.load({name.removeprefix("random."): file.get_tensor(name) for name in kept})
    return Progress(**json.loads(notes["progress"]))


def steps_of(folder: Path) -> int:
    """Steps that the checkpoint of a training has behind it; 0 where there is none."""
    path = folder / CHECKPOINT / "state.safetensors"
    if not path.exists():
        return 0
    with _opened(path) as file:
        return Progress(**json.loads(file.metadata()["progress"])).step


def keep_lines(folder: Path, count: int) -> None:
    """Drop log lines, the last perhaps cut short, of what a resumed run does again."""
    path = folder / LOG
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()[:count]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise StoreError(f"{path} is damaged ({error}); begin the run anew with --overwrite") from error


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, state: Mapping[torch.Tensor, Mapping[str, torch.Tensor]]
) -> None:
    own = optimizer.state_dict()
    order = [weight for group in optimizer.param_groups for weight in group["params"]]
    own["state"] = {place: dict(state[weight]) for place, weight in enumerate(order) if weight in state}
    optimizer.load_state_dict(own)


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise UsageError naming the first setting that a finished RUN was not trained with."""
    _same_settings(about(str(folder))["settings"], settings, f"{folder}: ")


def _same_settings(then: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> None:
    now = json.loads(json.dumps(now))
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            raise UsageError(
                f"{where}{name} was {then.get(name)} when the run began and is {now.get(name)} now; "
                "resume with what it began with, or start anew with --overwrite"
            )


def save_best(folder: Path, weights: Named) -> None:
    """Keep the best weights so far."""
    save_tensors(folder / CHECKPOINT / "best.safetensors", weights, {})


def load_best(folder: Path, weights: Named) -> None:
    """Put the best weights back, if any were kept."""
    path = folder / CHECKPOINT / "best.safetensors"
    if path.exists():
        with _opened(path) as file, torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(file.get_tensor(name))


def finish(folder: Path, about: Mapping[str, Any]) -> None:
    """Write `recycle.json`, which makes the RUN a finished one, and drop what only a resume needed."""
    partial = folder / f"{ABOUT}.partial"
    partial.write_text(json.dumps({"version": RUN_VERSION, **about}, indent=2, default=str) + "\n", encoding="utf-8")
    partial.replace(folder / ABOUT)
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def about(run: str) -> dict[str, Any]:
    """What recycle knows of a finished RUN. Raises StoreError where it is not one."""
    path = Path(run) / ABOUT
    if not Path(run).exists():
        raise StoreError(f"{run}: no such run; make one with `recycle finetune ... --output {run}`")
    if not path.is_file():
        unfinished = (Path(run) / CHECKPOINT).exists()
        what = "its training has not finished; go on with --resume" if unfinished else f"it has no {ABOUT}"
        raise StoreError(f"{run} is not a finished run: {what}")
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} is not readable ({error}); train the run again") from error
    if data.get("version") != RUN_VERSION:
        raise StoreError(f"{path} has version {data.get('version')}, expected {RUN_VERSION}; update recycle")
    return data


def report(folder: Path) -> dict[str, Any]:
    """The figures of a finished RUN's training. Raises StoreError where it is not one."""
    figures: dict[str, Any] = about(str(folder))["report"]
    return figures
