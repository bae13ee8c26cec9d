"""What a command shows: tables and progress on stderr for people, one JSON object on stdout for programs."""

from recycle_cli.reports.progress import Bar, bar, spinner
from recycle_cli.reports.screen import be_quiet, is_quiet, say
from recycle_cli.reports.tables import show, show_fields, show_json, show_rows
from recycle_cli.reports.words import counted, human, size

__all__ = [
    "Bar",
    "bar",
    "be_quiet",
    "counted",
    "human",
    "is_quiet",
    "say",
    "show",
    "show_fields",
    "show_json",
    "show_rows",
    "size",
    "spinner",
]
