"""A checkpoint of a training: all that an exact resume needs, and the best weights so far."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from recycle_cli.errors import StorageError, StoreError, UsageError
from recycle_cli.runs.folder import CHECKPOINT, LOG
from recycle_cli.runtime.random_generators import Randomness
from recycle_cli.settings import TrainingSettings, decisive

Named = Mapping[str, torch.Tensor]

VERSION = "2"
"""Of the state. Those without one were made by versions whose steps were rounded otherwise."""


@dataclass
class State:
    """How far a training is: the next batch of the next epoch, and the best evaluation so far. Times in seconds.

    epoch, batch  those that are finished, the batches of the epoch that is not
    cut           where the head begins
    lines         lines of the log by then, so that a resumed run drops those that came after
    seen          samples that it learnt from, once for each time
    loss, weight  sums over the steps of the epoch that is not finished
    epochs        of each finished epoch: its number, its last step, its mean loss (None if it had nothing to learn
                  from), its seconds, and the metrics at its end (None without an evaluation)
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
    cut: str = "0"
    best_step: int = 0
    loss: float = 0.0
    weight: float = 0.0
    epochs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def current_epoch(self) -> int:
        """The epoch that it is in, counted from 1; between two of them the one that is finished."""
        return self.epoch + (1 if self.batch else 0)


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, str]) -> None:
    """Write tensors and notes as one safetensors file, in one step. Raises StorageError if the disk is full."""
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial, dict(notes))
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written ({error}); free some space, then --resume") from error


def save_state(
    folder: Path,
    state: State,
    weights: Named,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    randomness: Randomness,
    identity: Mapping[str, Any],
) -> None:
    """Keep weights, optimizer moments, loss scale, random states and the place in the data."""
    tensors = {f"random.{name}": one for name, one in randomness.states.items()}
    for name, weight in weights.items():
        tensors[f"weights.{name}"] = weight
        for moment, value in optimizer.state.get(weight, {}).items():
            tensors[f"optimizer.{moment}.{name}"] = value
    notes = {
        "version": VERSION,
        "state": json.dumps(asdict(state)),
        "settings": json.dumps(identity, sort_keys=True),
        "scaler": json.dumps(scaler.state_dict()),
    }
    save_tensors(folder / CHECKPOINT / "state.safetensors", tensors, notes)


def load_state(
    folder: Path,
    weights: Named,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    randomness: Randomness,
    identity: Mapping[str, Any],
) -> State | None:
    """Restore a training from its checkpoint and return its state; None if there is no checkpoint.

    Raises UsageError naming the first setting that is not as it was, StoreError for a checkpoint of another version.
    """
    path = folder / CHECKPOINT / "state.safetensors"
    if not path.exists():
        return None
    with _opened(path) as file:
        notes = _notes(file, path)
        same_settings(json.loads(notes["settings"]), identity)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(file.get_tensor(f"weights.{name}"))
        kept: dict[torch.Tensor, dict[str, torch.Tensor]] = {}
        for key in file.keys():  # noqa: SIM118 - safe_open is no mapping
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                moment, _, name = rest.partition(".")
                kept.setdefault(weights[name], {})[moment] = file.get_tensor(key)
        _restore_optimizer(optimizer, kept)
        scaler.load_state_dict(json.loads(notes["scaler"]))
        random = [name for name in file.keys() if name.startswith("random.")]  # noqa: SIM118
        randomness.load({name.removeprefix("random."): file.get_tensor(name) for name in random})
    return State(**json.loads(notes["state"]))


def steps_of(folder: Path) -> int:
    """Steps that the checkpoint of a training has behind it; 0 if there is none."""
    path = folder / CHECKPOINT / "state.safetensors"
    if not path.exists():
        return 0
    with _opened(path) as file:
        return State(**json.loads(_notes(file, path)["state"])).step


def _notes(file: Any, path: Path) -> Mapping[str, str]:
    notes: Mapping[str, str] = file.metadata() or {}
    if notes.get("version") != VERSION:
        raise StoreError(
            f"{path} was made by another version of recycle, whose steps are not exactly those of this one; finish the "
            "run with that version, or begin it anew with --overwrite"
        )
    return notes


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


def same_settings(then: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> None:
    """Raise UsageError naming the first setting that differs. An option that there was not yet had its default."""
    defaults = decisive(TrainingSettings())
    then, now = (json.loads(json.dumps(_completed(one, defaults))) for one in (then, now))
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            raise UsageError(
                f"{where}{name} was {then.get(name)} when the run began and is {now.get(name)} now; "
                "resume with what it began with, or start anew with --overwrite"
            )


def _completed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, and of the defaults those that they lack, in mappings inside them too."""
    found = {**defaults, **settings}
    for name, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(found[name], Mapping):
            found[name] = _completed(found[name], value)
    return found


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
