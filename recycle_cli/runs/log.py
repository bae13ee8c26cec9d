"""Where a training's records go: a line each in metrics.jsonl, and TensorBoard if it is installed."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recycle_cli.runs.checkpoint import steps_of
from recycle_cli.runs.folder import LOG

Log = Callable[[Mapping[str, Any]], None]


def ignore(record: Mapping[str, Any]) -> None:
    """A log that keeps nothing."""


@contextmanager
def logger(folder: Path, tensorboard: bool) -> Iterator[Log]:
    """A function that keeps a record of a step or of an evaluation."""
    board = _board(folder, steps_of(folder)) if tensorboard else None
    with (folder / LOG).open("a", encoding="utf-8") as lines:

        def log(record: Mapping[str, Any]) -> None:
            lines.write(json.dumps(record) + "\n")
            lines.flush()
            if board is not None:
                for name, value in {**record, **record.get("evaluation", {})}.items():
                    if isinstance(value, float):
                        board.add_scalar(
                            f"{'evaluation' if 'evaluation' in record else 'train'}/{name}", value, record["step"]
                        )

        try:
            yield log
        finally:
            if board is not None:
                board.close()


def _board(folder: Path, steps: int) -> Any:
    """A writer that goes on after `steps`: TensorBoard then hides what an interrupted run logged beyond them."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=steps + 1 if steps else None)


def last_loss(folder: Path) -> float:
    """The loss of the last step."""
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    return float(next(record["loss"] for record in map(json.loads, reversed(lines)) if "loss" in record))
