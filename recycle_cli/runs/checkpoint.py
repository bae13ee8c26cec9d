"""The checkpoint of a training: its state, from which it resumes exactly, and the best weights so far."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from recycle_cli.disk import OPEN_SEAL, digest, is_sealed, make_folder, replacing, seal, sync
from recycle_cli.errors import DamageError, StorageError, StoreError
from recycle_cli.runs.beginning import BEST, training_of
from recycle_cli.runs.folder import ANEW, CHECKPOINT, LOG, STATE, TRAINING_VERSION
from recycle_cli.runs.same_settings import same_settings
from recycle_cli.runtime.random_generators import Randomness

Named = Mapping[str, torch.Tensor]

STATE_VERSION = str(TRAINING_VERSION)


@dataclass
class FreezeState:
    """How far the freezing of layers is, which are numbered from 0.

    frozen     those that do not train any more
    annealing  those whose learning rate falls to 0 since the step `since`
    norms      of each layer's gradients in the last interval; None before the first one has ended
    reads      the cut whose rows are read from the training's own store; None for where it began
    writes     the cut whose rows are being written
    began      the cut before which nothing trained when the epoch began; None for where the head began
    moves      of each move of the cut that is read: `epoch`, from which on, `cut`, `bytes` of the rows, and
               `seal_seconds` that it took before that epoch to have them on the disk
    """

    frozen: list[int] = field(default_factory=list)
    annealing: list[int] = field(default_factory=list)
    since: int = 0
    norms: list[float] | None = None
    reads: str | None = None
    writes: str | None = None
    began: str | None = None
    moves: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class State:
    """How far a training is, and its best evaluation so far. Times in seconds.

    epoch, batch  finished epochs, and finished batches of the epoch after them
    best_step     the step after which the best weights were kept
    cut           where the head begins
    lines         lines of the log so far; a resumed run drops those after them
    seen          samples that it learnt from, counted anew in each epoch
    loss, weight  sums over the steps of the unfinished epoch
    epochs        for each finished epoch its number, its last step, its mean loss (None if it had nothing to learn
                  from), its seconds, those of its phases, and the metrics at its end (None without an evaluation)
    phases        seconds of each phase of the unfinished epoch
    sent          bytes and seconds of what one of several processes has sent in it; empty for one alone
    freezing      of layers that freeze while the others train
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
    phases: dict[str, float] = field(default_factory=dict)
    sent: dict[str, float] = field(default_factory=dict)
    freezing: FreezeState = field(default_factory=FreezeState)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "State":
        """From what a checkpoint has kept."""
        return cls(**{**data, "freezing": FreezeState(**data.get("freezing", {}))})

    @property
    def current_epoch(self) -> int:
        """The number of the current epoch, from 1; between two epochs, that of the finished one."""
        return self.epoch + (1 if self.batch else 0)


def save_tensors(path: Path, tensors: Named, notes: Mapping[str, str]) -> None:
    """Write tensors and notes, with a digest of it all, as one safetensors file, in one step and synced.

    Raises StorageError if the disk does not take it.
    """
    try:
        make_folder(path.parent)
        with replacing(path) as partial:
            contents = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
            save_file(contents, partial, {**notes, "digest": OPEN_SEAL})
            seal(partial)
    except (OSError, SafetensorError) as error:
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
    log = folder / LOG
    if log.exists():
        sync(log)  # before the state, which says that these lines exist
    notes = {
        "version": STATE_VERSION,
        "training": training_of(folder),
        "log": json.dumps(digest(log) if log.exists() else None),
        "state": json.dumps(asdict(state)),
        "settings": json.dumps(identity, sort_keys=True),
        "scaler": json.dumps(scaler.state_dict()),
    }
    save_tensors(folder / CHECKPOINT / STATE, tensors, notes)


def load_state(
    folder: Path,
    weights: Named,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    randomness: Randomness,
    identity: Mapping[str, Any],
) -> State | None:
    """Restore a training from its checkpoint and return its state; None if there is no checkpoint.

    Raises UsageError naming the first setting that has changed, DamageError for files that have changed since they were
    written, StoreError for a checkpoint of another version or another training.
    """
    path = folder / CHECKPOINT / STATE
    if not path.exists():
        _keep_lines(folder / LOG, None)
        return None
    with _opened(path) as file:
        notes = _notes(file, path)
        _check_training(notes, path, folder)
        same_settings(json.loads(notes["settings"]), identity)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(file.get_tensor(f"weights.{name}"))
        _restore_optimizer(optimizer, weights, _tensors(file, "optimizer."))
        scaler.load_state_dict(json.loads(notes["scaler"]))
        randomness.load(_tensors(file, "random."))
    state = State.from_json(json.loads(notes["state"]))
    _keep_lines(folder / LOG, json.loads(notes["log"]))
    return state


def steps_of(folder: Path) -> int:
    """The optimizer steps that the checkpoint of a training has done; 0 if there is none."""
    path = folder / CHECKPOINT / STATE
    if not path.exists():
        return 0
    with _opened(path) as file:
        return State.from_json(json.loads(_notes(file, path)["state"])).step


def load_tensors(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint whose names begin with `prefix`, by these names; none if there is no checkpoint."""
    path = folder / CHECKPOINT / STATE
    if not path.exists():
        return {}
    with _opened(path) as file:
        return {f"{prefix}{name}": one for name, one in _tensors(file, f"weights.{prefix}").items()}


def _notes(file: Any, path: Path) -> Mapping[str, str]:
    notes: Mapping[str, str] = file.metadata() or {}
    if notes.get("version") != STATE_VERSION:  # before version 2 there was none
        raise StoreError(
            f"{path} was made by another version of recycle, whose steps are not exactly those of this one; finish the "
            "run with that version, or begin it anew with --overwrite"
        )
    if not is_sealed(path):
        raise DamageError(f"{path} is damaged (it is not as it was written); {ANEW}")
    return notes


def _keep_lines(log: Path, was: Mapping[str, Any] | None) -> None:
    """Drop the log lines after the checkpoint, which a resumed run writes again. Raises DamageError if those before it
    have changed."""
    size = 0 if was is None else was["bytes"]
    if not log.exists():
        if size:
            raise DamageError(f"{log} is missing; {ANEW}")
        return
    with log.open("r+b") as file:  # in place, since the logger has it open
        if was is not None and xxhash.xxh3_128_hexdigest(file.read(size)) != was["xxh3_128"]:
            raise DamageError(f"{log} is damaged (its first {size:,} bytes are not as they were written); {ANEW}")
        file.truncate(size)


def _check_training(notes: Mapping[str, str], path: Path, folder: Path) -> None:
    if notes.get("training") != training_of(folder):
        raise StoreError(f"{path} is of another training than the one in {folder}; {ANEW}")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        file = safe_open(path, "pt")
    except SafetensorError as error:
        raise DamageError(f"{path} is damaged ({error}); {ANEW}") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: PyTorch maps the file, and the system refuses
        said = " ".join(str(error).split())
        raise StorageError(f"{path} cannot be opened ({said}); make it readable, and add --resume") from error
    try:
        with file:
            yield file
    except SafetensorError as error:
        raise DamageError(f"{path} is damaged ({error}); {ANEW}") from error


def _tensors(file: Any, kind: str) -> dict[str, torch.Tensor]:
    """The tensors of a state file whose names begin with `kind`, by the rest of their names."""
    names = [name for name in file.keys() if name.startswith(kind)]  # noqa: SIM118 - safe_open is no mapping
    return {name.removeprefix(kind): file.get_tensor(name) for name in names}


def _restore_optimizer(optimizer: torch.optim.Optimizer, weights: Named, moments: Named) -> None:
    """Put moments back into an optimizer. `moments`: by the name of the moment, a dot, and the name of its weight."""
    state: dict[torch.Tensor, dict[str, torch.Tensor]] = {}
    for key, value in moments.items():
        moment, _, name = key.partition(".")
        state.setdefault(weights[name], {})[moment] = value
    own = optimizer.state_dict()
    order = [weight for group in optimizer.param_groups for weight in group["params"]]
    own["state"] = {place: state[weight] for place, weight in enumerate(order) if weight in state}
    optimizer.load_state_dict(own)


def save_best(folder: Path, weights: Named, step: int) -> None:
    """Keep the weights after this step as the best so far. Raises StorageError if the disk does not take them."""
    notes = {"version": STATE_VERSION, "training": training_of(folder), "step": str(step)}
    save_tensors(folder / CHECKPOINT / BEST, weights, notes)


def load_best(folder: Path, weights: Named, step: int) -> None:
    """Copy the best weights, kept after this step, into `weights`. Raises DamageError if their file is damaged or
    missing, StoreError if it is of another training or step."""
    path = folder / CHECKPOINT / BEST
    if not path.exists():
        raise DamageError(f"{path} is missing; {ANEW}")
    with _opened(path) as file, torch.no_grad():
        notes = _notes(file, path)
        _check_training(notes, path, folder)
        if notes.get("step") != str(step):
            raise StoreError(f"{path} has the weights of step {notes.get('step')}, expected {step}; {ANEW}")
        for name, weight in weights.items():
            weight.copy_(file.get_tensor(name))
