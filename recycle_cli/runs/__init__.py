"""A RUN on disk: its folder, checkpoints while it trains, its log, its metadata, its predictions."""

from recycle_cli.runs.card import card_of
from recycle_cli.runs.checkpoint import (
    State,
    keep_lines,
    load_best,
    load_state,
    save_best,
    save_state,
    save_tensors,
    steps_of,
)
from recycle_cli.runs.folder import ABOUT, CHECKPOINT, LOG, OWN, claim, clear, is_finished, is_run
from recycle_cli.runs.kept import names_beside
from recycle_cli.runs.log import Log, chosen_trackers, ignore, last_loss, logger
from recycle_cli.runs.metadata import RunInfo, check_settings, read_info
from recycle_cli.runs.predictions import STDOUT, kind_of_output, open_output
from recycle_cli.runs.save import finish, save_run, versions
from recycle_cli.runs.trackers import check_trackers

__all__ = [
    "ABOUT",
    "CHECKPOINT",
    "LOG",
    "OWN",
    "STDOUT",
    "Log",
    "RunInfo",
    "State",
    "card_of",
    "check_settings",
    "check_trackers",
    "chosen_trackers",
    "claim",
    "clear",
    "finish",
    "ignore",
    "is_finished",
    "is_run",
    "keep_lines",
    "kind_of_output",
    "last_loss",
    "load_best",
    "load_state",
    "logger",
    "names_beside",
    "open_output",
    "read_info",
    "save_best",
    "save_run",
    "save_state",
    "save_tensors",
    "steps_of",
    "versions",
]
