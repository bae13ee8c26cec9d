"""The tables at the end of a training: its epochs with the best one marked, and nothing twice."""

import pytest

from recycle_cli.cli.trained import MOST_EPOCHS, show_finetuned, show_heads
from recycle_cli.reports import be_quiet
from recycle_cli.training import Finetuned, FinetunedHeads


def epoch(number, loss, score, seconds=2.0):
    metrics = None if score is None else {"macro_f1": score, "loss": 0.5}
    return {"epoch": number, "step": 10 * number, "epoch_loss": loss, "seconds": seconds, "metrics": metrics}


def report(epochs, best=2, step=None, **changes):
    metric = None if epochs[-1]["metrics"] is None else "macro_f1"
    fields = {
        "train_seconds": 6.0,
        "epoch_seconds": [2.0] * len(epochs),
        "samples_per_second": 100.0,
        "metrics": {"macro_f1": 0.875, "loss": 0.25} if metric else {"train_loss": 0.125},
        "best_epoch": best,
        "output": "run",
        "store_hit_share": 1.0,
        "samples": 200,
        "cut": "2",
        "classes": ["a", "b"],
        "metric": metric,
        "best_step": 10 * best if step is None else step,
        "epochs": epochs,
    }
    return Finetuned(**(fields | changes))


THREE = [epoch(1, 0.75, 0.5), epoch(2, 0.5, 0.875), epoch(3, 0.25, 0.625)]


@pytest.fixture
def shown(capsys):
    """The lines of a report, without frames, by their cells."""

    def shown(show, *arguments):
        show(*arguments, as_json=False)
        out, err = capsys.readouterr()
        assert out == ""
        return [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in err.splitlines()]

    return shown


def test_every_epoch_is_a_row_and_the_best_is_marked(shown):
    lines = shown(show_finetuned, report(THREE))
    assert ["epoch", "train loss", "macro f1", "eval loss", "seconds", "weights"] in lines
    assert [line for line in lines if len(line) == 6][1:] == [
        ["1", "0.7500", "0.5000", "0.5000", "2 s", ""],
        ["2", "0.5000", "0.8750", "0.5000", "2 s", "best"],
        ["3", "0.2500", "0.6250", "0.5000", "2 s", ""],
    ]
    assert ["macro f1", "0.8750"] in lines
    assert ["Fine-tuned"] in lines
    assert not [line for line in lines if "epoch seconds" in line]


def test_quiet_leaves_the_result_alone(shown):
    be_quiet(True)
    try:
        lines = shown(show_finetuned, report(THREE))
    finally:
        be_quiet(False)
    assert ["Fine-tuned"] in lines
    assert ["macro f1", "0.8750"] in lines
    assert not [line for line in lines if len(line) == 6]


def test_the_best_in_the_middle_of_an_epoch_has_a_row_of_its_own(shown):
    lines = shown(show_finetuned, report(THREE, step=15))
    rows = [line for line in lines if len(line) == 6][1:]
    assert rows[1] == ["2, step 15", "", "0.8750", "0.2500", "", "best"]
    assert [row[-1] for row in rows] == ["", "best", "", ""]


def test_without_an_evaluation_no_epoch_is_the_best(shown):
    lines = shown(show_finetuned, report([epoch(1, 0.75, None), epoch(2, None, None)]))
    assert ["epoch", "train loss", "seconds"] in lines
    assert ["2", "unknown", "2 s"] in lines
    assert not [line for line in lines if "best epoch" in line], "nothing was compared"


def test_a_head_that_was_solved_has_no_epochs(shown):
    solved = report([epoch(1, 0.25, 0.875)], best=1, solved_with=0.0)
    lines = shown(show_finetuned, solved)
    assert ["macro f1", "0.8750"] in lines
    assert not [line for line in lines if "epoch" in line[0].lower()]
    several = [vars(solved) | {"name": name} for name in ("one", "two")]
    lines = shown(show_heads, FinetunedHeads(several, 6.0, 80.0, "runs"))
    assert ["head", "macro f1", "eval loss"] in lines
    assert ["Epochs"] not in lines


@pytest.mark.parametrize("order", [1, -1])
def test_beside_a_head_that_was_solved_the_other_has_its_epochs(shown, order):
    solved = vars(report([epoch(1, 0.25, 0.875)], best=1, solved_with=0.5, epoch_seconds=[1.0])) | {"name": "linear"}
    other = vars(report(THREE[:2])) | {"name": "hidden"}
    lines = shown(show_heads, FinetunedHeads([solved, other][::order], 6.0, 80.0, "runs"))
    assert ["head", "macro f1", "eval loss", "best epoch", "solved with"] in lines
    assert [line for line in lines if line[0] in ("linear", "hidden")] == [
        ["linear", "0.8750", "0.2500", "", "0.5000"],
        ["hidden", "0.8750", "0.2500", "2 of 2", ""],
    ][::order]
    assert ["epoch", "hidden: macro f1", "seconds"] in lines


def test_of_many_epochs_the_last_and_the_best_are_listed(shown):
    many = [epoch(number, 0.5, 0.5) for number in range(1, 101)]
    lines = shown(show_finetuned, report(many, best=7))
    rows = [line for line in lines if len(line) == 6][1:]
    assert [row[0] for row in rows] == ["7", *map(str, range(101 - MOST_EPOCHS, 101))]
    assert [f"{MOST_EPOCHS + 1} of 100 epochs: the last ones and the best"] in lines


def test_heads_stand_side_by_side_and_what_they_share_stands_once(shown):
    plain = vars(report(THREE)) | {"name": "plain", "output": "runs/plain"}
    other = vars(report(THREE[:2], best=1, step=5, samples=150)) | {"name": "other", "output": "runs/other"}
    lines = shown(show_heads, FinetunedHeads([plain, other], 6.0, 80.0, "runs"))
    assert ["epoch", "plain: macro f1", "other: macro f1", "seconds"] in lines
    assert ["2", "0.8750 best", "0.8750", "2 s"] in lines
    assert ["1", "0.5000", "0.8750 best", "2 s"] in lines  # in the middle of the epoch
    assert ["head", "macro f1", "eval loss", "best epoch", "samples"] in lines
    assert ["plain", "0.8750", "0.2500", "2 of 3", "200"] in lines
    assert [line for line in lines if line[0] in ("train seconds", "cut", "samples per second")] == [
        ["cut", "2"],
        ["train seconds", "6 s"],
        ["samples per second", "80.0"],
    ]


def test_after_a_resume_each_head_has_its_own_time(shown):
    heads = [vars(report(THREE, train_seconds=seconds)) | {"name": f"h{seconds:.0f}"} for seconds in (6.0, 4.0)]
    del heads[1]["epochs"]  # another version has trained it
    lines = shown(show_heads, FinetunedHeads(heads, None, None, "runs"))
    assert ["head", "macro f1", "eval loss", "best epoch", "train seconds"] in lines
    assert ["2", "0.8750 best", "", "2 s"] in lines
