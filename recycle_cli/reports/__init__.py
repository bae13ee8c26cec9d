"""The output of a command: tables and progress on stderr for people, one JSON object on stdout for programs."""

from recycle_cli.reports.pictures import check_picture
from recycle_cli.reports.progress import Bar, bar, following, spinner
from recycle_cli.reports.screen import (
    answer_in_json,
    answers_in_json,
    be_quiet,
    fall_silent,
    flush_output,
    is_quiet,
    put,
    say,
)
from recycle_cli.reports.tables import error_in_json, show, show_fields, show_json, show_rows
from recycle_cli.reports.words import counted, human, in_line, size

__all__ = [
    "Bar",
    "answer_in_json",
    "answers_in_json",
    "bar",
    "be_quiet",
    "check_picture",
    "counted",
    "error_in_json",
    "fall_silent",
    "flush_output",
    "following",
    "human",
    "in_line",
    "is_quiet",
    "put",
    "say",
    "show",
    "show_fields",
    "show_json",
    "show_rows",
    "size",
    "spinner",
]
