"""Show a training to people: a table of its epochs with the best one marked, and one of all that it did."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from recycle_cli.errors import BarError
from recycle_cli.reports import human, is_quiet, show_fields, show_json, show_rows

if TYPE_CHECKING:
    from recycle_cli.training import Finetuned, FinetunedHeads

MOST_EPOCHS = 30
"""Epochs that a table lists; of more, the last ones and the best."""

BAR = 30
"""Characters of the longest bar."""

TIMES = ("train_seconds", "samples_per_second", "epoch_seconds")
"""Of a head: shared by all that trained together."""

Fields = Mapping[str, Any]


def show_finetuned(report: "Finetuned", *, as_json: bool, missed: BarError | None = None) -> None:
    """The report of one training."""
    fields = asdict(report)
    if as_json:
        show_json(fields, missed)
        return
    _show_epochs([fields])
    metrics = {_title(name): value for name, value in fields.pop("metrics").items()}
    depth = fields.pop("depth")
    if depth:
        show_rows("Depth: the share of each state in the head", _bars(depth))
    left_out = {"epochs", "epoch_seconds", "metric", "best_step"}
    if fields["solved_with"] is None:
        left_out.add("solved_with")
    if fields["metric"] is None or _is_solved(fields):  # no epoch was chosen
        left_out.add("best_epoch")
    fields["labels"] = fields.pop("classes")  # of a regression they are what is predicted, no classes
    if (freezing := fields.pop("freezing", None)) is not None:
        fields["frozen"] = f"{len(freezing['frozen'])} of {freezing['layers']} layers, up to the cut {freezing['cut']}"
    show_fields("Fine-tuned", metrics | {name: value for name, value in fields.items() if name not in left_out})


def _bars(depth: Mapping[str, float]) -> list[Fields]:
    """A row for each state, with a bar as long as its share."""
    widest = max(depth.values()) or 1.0
    return [{"state": state, "share": share, "": "█" * round(BAR * share / widest)} for state, share in depth.items()]


def show_heads(report: "FinetunedHeads", *, as_json: bool, missed: BarError | None = None) -> None:
    """The report of several heads; what they have in common stands once, below them."""
    fields = asdict(report)
    if as_json:
        show_json(fields, missed)
        return
    heads: list[dict[str, Any]] = fields.pop("heads")
    _show_epochs(heads)
    resumed = report.train_seconds is None
    apart = {"name", "output", "metric", "metrics", "epochs", "best_epoch", "best_step", "freezing", "depth"} | (
        {"epoch_seconds"} if resumed else set(TIMES)
    )
    if all(head.get("solved_with") is None for head in heads):
        apart.add("solved_with")
    named = [name for name in dict.fromkeys(name for head in heads for name in head) if name not in apart]
    shared = {name: heads[0].get(name) for name in named if len({repr(head.get(name)) for head in heads}) == 1}
    own = [name for name in named if name not in shared]
    metrics = dict.fromkeys(name for head in heads for name in head["metrics"])
    epochs = [] if all(map(_is_solved, heads)) else ["best_epoch"]
    rows: list[Fields] = [
        {
            "head": head["name"],
            **{_title(name): head["metrics"].get(name, "") for name in metrics},
            **{name: _best_epoch(head) for name in epochs},
            **{name: "" if name == "solved_with" and not _is_solved(head) else head.get(name) for name in own},
        }
        for head in heads
    ]
    show_rows("Heads", rows)
    show_fields("Fine-tuned", {**shared, **fields})


def _is_solved(report: Fields) -> bool:
    """Whether a head was brought to its optimum at once, in no epochs."""
    return report.get("solved_with") is not None


def _best_epoch(head: Fields) -> str:
    """Which epoch's weights a head of several has, of how many; nothing for one that was solved."""
    return "" if _is_solved(head) else f"{head['best_epoch']} of {len(head['epoch_seconds'])}"


def _show_epochs(reports: Sequence[Fields]) -> None:
    """The epochs of a training, or of several heads side by side, of which only the deciding metric is shown; --quiet
    leaves them out, and a head that was solved has none."""
    reports = [report for report in reports if not _is_solved(report)]
    numbers = [number for report in reports for number in (one["epoch"] for one in report.get("epochs", ()))]
    if not numbers or is_quiet():  # of a head that another version has trained there are none
        return
    last, best = max(numbers), {report["best_epoch"] for report in reports}
    chosen = [number for number in range(1, last + 1) if number > last - MOST_EPOCHS or number in best]
    row = _row_of_one if len(reports) == 1 and "name" not in reports[0] else _row_of_heads
    left_out = f"{len(chosen)} of {last} epochs: the last ones and the best" if len(chosen) < last else ""
    rows = [each for number in chosen for each in row(reports, number)]
    show_rows("Epochs", rows, left_out)


def _row_of_one(reports: Sequence[Fields], number: int) -> list[Fields]:
    """A row about an epoch; and before it one about an evaluation in its middle, if that was the best."""
    report = reports[0]
    own = _epoch(report, number)
    assert own is not None
    rows: list[Fields] = [
        {
            "epoch": number,
            "train_loss": own["epoch_loss"],
            **{_title(name): value for name, value in (own["metrics"] or {}).items()},
            **{name.replace("_", " "): own[name] for name in ("read_cut", "frozen_cut") if name in own},
            "seconds": own["seconds"],
        }
    ]
    if report["metric"] is None:
        return rows
    ends_best = report["best_step"] == own["step"]
    rows = [{**rows[0], "weights": "best" if ends_best else ""}]
    if report["best_epoch"] == number and not ends_best:
        between = {_title(name): value for name, value in report["metrics"].items()}
        step = f"{number}, step {report['best_step']:,}"
        rows.insert(0, {**dict.fromkeys(rows[0], ""), "epoch": step, **between, "weights": "best"})
    return rows


def _row_of_heads(reports: Sequence[Fields], number: int) -> list[Fields]:
    row: dict[str, Any] = {"epoch": number}
    seconds = 0.0
    for report in reports:
        own, metric = _epoch(report, number), report.get("metric")
        cell = ""
        if own is not None:
            seconds = max(seconds, own["seconds"])
            best = metric is not None and report["best_epoch"] == number
            figures = report["metrics"] if best else own["metrics"] or {}
            cell = human("", own["epoch_loss"] if metric is None else figures[metric]) + (" best" if best else "")
        row[f"{report['name']}: {_title(metric or 'train_loss')}"] = cell
    return [{**row, "seconds": seconds}]


def _epoch(report: Fields, number: int) -> Fields | None:
    return next((one for one in report.get("epochs", ()) if one["epoch"] == number), None)


def _title(metric: str) -> str:
    """The head of a metric's column: the loss of an evaluation is not that of the training."""
    return "eval_loss" if metric == "loss" else metric
