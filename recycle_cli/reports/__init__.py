"""What a command shows: tables and progress on stderr for people, one JSON object on stdout for programs."""

from recycle_cli.reports.progress import LOG_SECONDS, STARTING_SECONDS, Bar, bar, spinner
from recycle_cli.reports.screen import WIDE, be_quiet, console, is_quiet, say
from recycle_cli.reports.tables import described, show, show_fields, show_json, show_rows
from recycle_cli.reports.words import clock, counted, human, printable, size

__all__ = [
    "LOG_SECONDS",
    "STARTING_SECONDS",
    "WIDE",
    "Bar",
    "bar",
    "be_quiet",
    "clock",
    "console",
    "counted",
    "described",
    "human",
    "is_quiet",
    "printable",
    "say",
    "show",
    "show_fields",
    "show_json",
    "show_rows",
    "size",
    "spinner",
]
