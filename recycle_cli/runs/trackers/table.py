"""`--log csv`: one table in the RUN, for spreadsheets and data frames."""

import csv
from collections.abc import Mapping
from pathlib import Path

from recycle_cli.runs.trackers.contract import About

METRICS_TABLE = "metrics.csv"


class CsvTable:
    """A row for each step and each evaluation; a resumed training drops the rows that it will do again."""

    key = None
    where = ""

    def __init__(self, about: About) -> None:
        self._path = about.folder / METRICS_TABLE
        self._columns, rows = _read(self._path)
        self._write([row for row in rows if int(row["step"]) <= about.steps])

    def _write(self, rows: list[dict[str, str]]) -> None:
        with self._path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Add a row. The table is written anew for figures that it has no column for: the first evaluation's."""
        if new := [name for name in figures if name not in self._columns]:
            rows = _read(self._path)[1]
            self._columns += new
            self._write(rows)
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns).writerow({"step": step, **figures})

    def close(self, *, finished: bool) -> None:
        """Every row is written as it comes."""


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows; the last line may have been cut short, and is left out then."""
    if not path.exists():
        return ["step"], []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or ["step"])
        return columns, [row for row in reader if None not in row.values()]
