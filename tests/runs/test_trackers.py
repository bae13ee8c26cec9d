"""Trackers get every figure, the settings and the digests, go on after a resume, and never end a training."""

import csv
import json
import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest

from recycle_cli.errors import Interrupted, UsageError
from recycle_cli.runs import log as logging
from recycle_cli.runs.log import chosen_trackers, figures_of, logger
from recycle_cli.runs.trackers import TRACKERS, About, TrackerKind, check_trackers, tracking
from recycle_cli.settings.reading import LOGS

tracking_module = sys.modules["recycle_cli.runs.trackers.tracking"]

SETTINGS = {"learning_rate": 0.001, "adapter": {"kind": "none", "layers": ()}, "data": "digest-of-data", "store": None}
FLAT = {
    "learning_rate": 0.001,
    "adapter.kind": "none",
    "adapter.layers": "()",
    "data": "digest-of-data",
    "store": "None",
}

RECORDS = [
    {"step": 1, "epoch": 1, "loss": 0.5, "samples": 8},
    {"step": 2, "epoch": 1, "loss": 0.25, "samples": 8},
    {"step": 2, "epoch": 1, "epoch_loss": 0.375},
    {"step": 2, "epoch": 1, "evaluation": {"macro_f1": 0.75, "loss": 0.125}},
    {"step": 3, "epoch": 2, "loss": 0.0625, "samples": 8},
]


class Kept:
    """A tracker that keeps what it is given."""

    key = None
    where = ""

    def __init__(self, about):
        self.about, self.logged, self.finished = about, [], None

    def log(self, step, figures):
        self.logged.append((step, figures))

    def close(self, *, finished):
        self.finished = finished


@pytest.fixture
def use(monkeypatch):
    """Put a tracker into the table under a name."""

    def use(name, tracker):
        monkeypatch.setitem(TRACKERS, name, TrackerKind(None, tracker))
        return name

    return use


@pytest.fixture
def module(monkeypatch):
    """A module of this name, as if it were installed."""

    def module(name, **members):
        made = ModuleType(name)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    return module


def run(folder, names, records=RECORDS, steps=0, monkeypatch=None):
    if monkeypatch is not None:
        monkeypatch.setattr(logging, "steps_of", lambda folder: steps)
    with logger(folder, names, "a-run", SETTINGS) as log:
        for record in records:
            log(record)


def test_the_option_and_the_table_name_the_same_trackers():
    assert list(LOGS) == list(TRACKERS)


def test_a_tracker_gets_settings_digests_and_the_figures_of_steps_epochs_and_evaluations(use, tmp_path):
    made = []
    run(tmp_path, [use("kept", lambda about: made.append(Kept(about)) or made[0])])
    (kept,) = made
    assert kept.about == About(tmp_path, "a-run", FLAT, 0, None)
    assert kept.logged == [(record["step"], figures_of(record)) for record in RECORDS]
    assert kept.logged[2:4] == [
        (2, {"epoch": 1, "train/epoch_loss": 0.375}),
        (2, {"epoch": 1, "evaluation/macro_f1": 0.75, "evaluation/loss": 0.125}),
    ]
    assert kept.finished is True
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [record for record in RECORDS if "epoch_loss" not in record]


def test_a_tracker_hears_of_an_interruption(use, tmp_path):
    made = []
    name = use("kept", lambda about: made.append(Kept(about)) or made[0])
    with pytest.raises(Interrupted), tracking([name], About(tmp_path, "a", {})):
        raise Interrupted
    assert made[0].finished is False


class Broken(Kept):
    """Fails where it is told to."""

    def __init__(self, about, where):
        super().__init__(about)
        self._where = where
        self._fail("open")

    def log(self, step, figures):
        self._fail("log")

    def close(self, *, finished):
        self._fail("close")

    def _fail(self, where):
        if where == self._where:
            raise ConnectionError("the network\nis unreachable")


@pytest.mark.parametrize("where", ["open", "log", "close"])
def test_a_tracker_that_fails_is_told_in_one_line_and_ends_nothing(use, tmp_path, capsys, where):
    made = []
    names = [
        use("broken", lambda about: Broken(about, where)),
        use("kept", lambda about: made.append(Kept(about)) or made[0]),
    ]
    run(tmp_path, names)
    assert len(made[0].logged) == len(RECORDS)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == len(RECORDS) - 1
    assert capsys.readouterr().err == (
        "--log broken has failed, and the training goes on without it: ConnectionError: the network is unreachable\n"
    )


def test_a_tracker_that_hangs_holds_nothing_up(use, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tracking_module, "PATIENCE", 0.05)
    late = threading.Event()
    run(tmp_path, [use("hanging", lambda about: late.wait() and Kept(about))])
    assert capsys.readouterr().err == "--log hanging: it has not taken all figures in 0 s, and is left alone\n"
    late.set()


def test_what_a_tracker_prints_is_not_on_stdout(use, tmp_path, capsys):
    def chatty(about):
        print("welcome")
        return Kept(about)

    run(tmp_path, [use("chatty", chatty)])
    assert capsys.readouterr() == ("", "welcome\n")


def test_a_tracker_that_is_not_installed_is_refused_with_the_extra(monkeypatch):
    monkeypatch.setattr(tracking_module, "find_spec", lambda name: None)
    for name in set(LOGS) - {"csv"}:
        with pytest.raises(UsageError, match=rf"--log {name} needs a package: pip install 'recycle-cli\[{name}\]'"):
            check_trackers([name])
    check_trackers(["csv"])
    assert chosen_trackers(["csv"], tensorboard=True) == ["csv"]
    with pytest.raises(UsageError, match="--log nonsense is not known; take one of csv"):
        check_trackers(["nonsense"])


def table(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_column_for_each_figure(tmp_path):
    run(tmp_path, ["csv"])
    rows = table(tmp_path)
    assert [row["step"] for row in rows] == ["1", "2", "2", "2", "3"]
    assert [row["train/loss"] for row in rows] == ["0.5", "0.25", "", "", "0.0625"]
    assert (rows[3]["evaluation/macro_f1"], rows[2]["train/epoch_loss"]) == ("0.75", "0.375")


def test_a_resumed_table_has_each_step_once_and_no_half_line(tmp_path, monkeypatch):
    run(tmp_path, ["csv"])
    whole = (tmp_path / "metrics.csv").read_text()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4,2")  # cut short by a kill
    run(tmp_path, ["csv"], [RECORDS[-1]], 2, monkeypatch)
    assert (tmp_path / "metrics.csv").read_text() == whole


class Run:
    """What wandb and trackio give for a run."""

    url, dir, offline = "https://somewhere", "here", False

    def __init__(self, calls):
        self._calls = calls

    def log(self, figures, step):
        self._calls.append(("log", step, figures))

    def finish(self, **how):
        self._calls.append(("finish", how))


def test_wandb_goes_on_with_the_run_of_its_id(module, tmp_path, monkeypatch):
    calls = []
    module(
        "wandb",
        init=lambda **options: calls.append(("init", options)) or Run(calls),
        Settings=dict,
    )
    monkeypatch.setenv("WANDB_PROJECT", "texts")
    run(tmp_path, ["wandb"])
    first = calls[0][1]
    assert (first["project"], first["name"], first["config"], first["dir"]) == ("texts", "a-run", FLAT, str(tmp_path))
    assert calls[1:-1] == [("log", record["step"], figures_of(record)) for record in RECORDS]
    assert calls[-1] == ("finish", {"exit_code": 0})
    run(tmp_path, ["wandb"], [RECORDS[-1]], 2, monkeypatch)
    again = next(call[1] for call in reversed(calls) if call[0] == "init")
    assert (again["id"], again["resume"]) == (first["id"], "allow")


@pytest.mark.parametrize(("mode", "asked"), [("online", 1), ("offline", 0), ("disabled", 0)])
def test_wandb_asks_for_the_key_before_the_work_and_only_if_it_sends(module, monkeypatch, mode, asked):
    class Error(Exception):
        pass

    def login():
        calls.append("login")
        raise Error("api_key not configured (no-tty)")

    calls = []
    module("wandb", setup=lambda: SimpleNamespace(settings=SimpleNamespace(mode=mode)), login=login, Error=Error)
    monkeypatch.setattr(tracking_module, "find_spec", lambda name: True)
    if asked:
        with pytest.raises(UsageError, match=r"not configured.*run `wandb login`, or set WANDB_MODE=offline"):
            check_trackers(["wandb"])
    else:
        check_trackers(["wandb"])
    assert len(calls) == asked


def test_trackio_goes_on_with_the_run_of_its_name(module, tmp_path, monkeypatch):
    calls = []
    module("trackio", init=lambda **options: calls.append(("init", options)) or Run(calls))
    run(tmp_path, ["trackio"])
    run(tmp_path, ["trackio"], [RECORDS[-1]], 2, monkeypatch)
    first, again = (call[1] for call in calls if call[0] == "init")
    assert first["name"].startswith("a-run-")
    assert (again["name"], first["resume"], again["resume"]) == (first["name"], "never", "allow")
    assert len([call for call in calls if call[0] == "log"]) == len(RECORDS) + 1


# With the packages themselves, without a network


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["wandb"])
    run(tmp_path, ["wandb"])
    run(tmp_path, ["wandb"], [RECORDS[-1]], 2, monkeypatch)
    kept = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    key = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    assert len(kept) == 2
    assert {path.stem for path in kept} == {f"run-{key}"}
    assert all(path.stat().st_size for path in kept)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_in_a_local_database(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    run(tmp_path, ["mlflow"], RECORDS[:4])
    run(tmp_path, ["mlflow"], RECORDS[1:], 1, monkeypatch)
    client = mlflow.MlflowClient()
    (experiment,) = [one for one in client.search_experiments() if one.name == "recycle"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["data"] == "digest-of-data"
    assert found.data.metrics["evaluation/macro_f1"] == 0.75
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert sorted({(one.step, one.value) for one in history}) == [(1, 0.5), (2, 0.25), (3, 0.0625)]


@pytest.mark.filterwarnings("ignore")
def test_trackio_in_a_local_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    run(tmp_path, ["trackio"])
    run(tmp_path, ["trackio"], [RECORDS[-1]], 2, monkeypatch)
    assert list((tmp_path / "trackio").rglob("recycle*"))


def test_tensorboard_has_the_settings_and_hides_what_is_done_again(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, ["tensorboard"])
    run(tmp_path, ["tensorboard"], [RECORDS[-1]], 2, monkeypatch)
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in shown.Scalars("train/loss")] == [1, 2, 3]
    assert [event.value for event in shown.Scalars("evaluation/macro_f1")] == [0.75]
    assert "digest-of-data" in str(shown.Tensors("settings/text_summary"))
