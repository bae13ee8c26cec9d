"""A RUN on disk: its folder, the checkpoints of its training, its log, its metadata, its predictions."""

from recycle_cli.runs.beginning import SCRATCH, begin, training_of
from recycle_cli.runs.card import card_of
from recycle_cli.runs.checkpoint import (
    FreezeState,
    State,
    load_best,
    load_state,
    load_tensors,
    save_best,
    save_state,
    steps_of,
)
from recycle_cli.runs.folder import RESERVED, RunFolder, claim, is_finished, is_run, is_to_be_replaced
from recycle_cli.runs.kept import names_beside
from recycle_cli.runs.log import Log, chosen_trackers, ignore, last_loss, logger
from recycle_cli.runs.metadata import RunInfo, check_files, check_settings, own_paths, read_info
from recycle_cli.runs.output_formats import json_line
from recycle_cli.runs.predictions import kind_of_output, open_output, usual_ending
from recycle_cli.runs.replacing import put_in_place, recover
from recycle_cli.runs.same_settings import same_settings
from recycle_cli.runs.save import save_run, versions
from recycle_cli.runs.trackers import check_trackers

__all__ = [
    "RESERVED",
    "SCRATCH",
    "FreezeState",
    "Log",
    "RunFolder",
    "RunInfo",
    "State",
    "begin",
    "card_of",
    "check_files",
    "check_settings",
    "check_trackers",
    "chosen_trackers",
    "claim",
    "ignore",
    "is_finished",
    "is_run",
    "is_to_be_replaced",
    "json_line",
    "kind_of_output",
    "last_loss",
    "load_best",
    "load_state",
    "load_tensors",
    "logger",
    "names_beside",
    "open_output",
    "own_paths",
    "put_in_place",
    "read_info",
    "recover",
    "same_settings",
    "save_best",
    "save_run",
    "save_state",
    "steps_of",
    "training_of",
    "usual_ending",
    "versions",
]
