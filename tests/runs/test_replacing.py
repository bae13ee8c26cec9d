"""A RUN that replaces another takes its place when it is whole; nothing is lost, at whatever step it stops."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from recycle_cli import runs
from recycle_cli.errors import StoreError, UsageError
from recycle_cli.runs import replacing
from recycle_cli.runs.folder import beside

INFO = runs.RunInfo("text-classification", "m", "2", {"metrics": {}})


class Stopped(BaseException):
    """The power is gone."""


def model(text):
    """A model that is saved as two files, one of them in a folder."""

    def save(folder, max_length):
        (folder / "model.safetensors").write_text(text)
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_model.safetensors").write_text(text)

    return SimpleNamespace(save=save)


def train(output, text, *, overwrite=False, resume=False, place=True):
    """A training that has no steps, and the RUN that it leaves."""
    found = runs.claim(str(output), overwrite=overwrite, resume=resume)
    with runs.begin(found, {"seed": 1}, resume=resume):
        (found.work / "metrics.jsonl").write_text(text)
        runs.save_run(found.work, model(text), INFO, "card")
        if place:
            runs.put_in_place(found)
    return found


def trained(run):
    """What a RUN was made of; its files are as they were left."""
    runs.check_files(run, runs.read_info(run))
    return (run / "model.safetensors").read_text()


def foreign(run):
    """Put into a RUN what a user may keep there."""
    (run / "acts.zarr" / "segments").mkdir(parents=True)
    (run / "acts.zarr" / "segments" / "one").write_text("rows")
    (run / "dev.csv").write_text("text,label")
    (run / "adapter" / "notes.txt").write_text("mine")
    (run / "link").symlink_to("dev.csv")
    return {
        "acts.zarr/segments/one": "rows",
        "dev.csv": "text,label",
        "adapter/notes.txt": "mine",
        "link": "text,label",
    }


def holds(run, kept):
    return all((run / name).read_text() == text for name, text in kept.items())


def test_the_old_run_stays_until_the_new_one_is_whole_and_a_resume_finishes_that(tmp_path):
    run = tmp_path / "run"
    train(run, "old")
    place = runs.claim(str(run), overwrite=True, resume=False)
    with runs.begin(place, {"seed": 1}, resume=False):
        assert trained(run) == "old"
    with pytest.raises(UsageError, match=r"holds a finished run, and .*\.run\.new the unfinished one.*--resume"):
        runs.claim(str(run), overwrite=False, resume=False)
    assert train(run, "new", resume=True) == place
    assert trained(run) == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with pytest.raises(UsageError, match="nothing to resume"):
        runs.claim(str(run), overwrite=False, resume=True)


def test_what_is_not_the_runs_own_is_kept(tmp_path, capsys):
    run = tmp_path / "run"
    train(run, "old")
    kept = foreign(run)
    train(run, "new", overwrite=True)
    assert trained(run) == "new"
    assert holds(run, kept)
    assert "kept acts.zarr, adapter/notes.txt, dev.csv, link of the run before" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_name_that_the_new_run_has_too_stays_beside_it(tmp_path, capsys):
    run = tmp_path / "run"
    train(run, "old")
    about = runs.read_info(run)
    assert "adapter/adapter_model.safetensors" in about.files
    (run / "extra.txt").write_text("mine")
    place = train(run, "new", overwrite=True, place=False)
    (place.work / "extra.txt").write_text("the new run's")
    runs.put_in_place(place)
    assert (run / "extra.txt").read_text() == "the new run's"
    assert (beside(run) / "extra.txt").read_text() == "mine"
    assert f"{beside(run)}: kept extra.txt" in capsys.readouterr().err


def test_a_run_that_lists_no_files_is_kept_whole(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    old = {name: value for name, value in INFO.to_json().items() if name != "files"} | {"version": 1}
    (run / "recycle.json").write_text(json.dumps(old))
    (run / "thesis.docx").write_text("mine")
    train(run, "new", overwrite=True)
    assert trained(run) == "new"
    assert (tmp_path / "run.before" / "thesis.docx").read_text() == "mine"
    assert "run.before" in capsys.readouterr().err


STEPS = ("rename", "unlink", "rmdir", "mkdir")


@pytest.mark.parametrize("can_exchange", [True, False])
def test_stopped_at_any_step_one_of_them_is_whole_and_the_next_command_finishes(tmp_path, monkeypatch, can_exchange):
    """Each step is a call that changes a folder; the process dies before it, and after the exchange."""
    origin = tmp_path / "origin"
    train(origin / "run", "old")
    kept = foreign(origin / "run")
    place = train(origin / "run", "new", overwrite=True, place=False)
    stops = 0
    for stop in range(100):
        folder = tmp_path / str(stop)
        shutil.copytree(origin, folder, symlinks=True)
        here = replace(place, output=folder / "run", work=folder / ".run.new")
        with monkeypatch.context() as patched:
            left = iter(range(stop, -1, -1))
            _count(patched, left, can_exchange=can_exchange)
            try:
                runs.put_in_place(here)
                ended = True
            except Stopped:
                ended = False
        stops += not ended
        if (folder / "run").exists():
            assert trained(folder / "run") in ("old", "new")
        else:
            assert trained(folder / ".run.new") == "new"
        runs.recover(str(folder / "run"))
        if trained(folder / "run") == "old":
            train(folder / "run", "new", resume=True)
        assert trained(folder / "run") == "new"
        assert holds(folder / "run", kept)
        assert [path.name for path in folder.iterdir()] == ["run"]
        if ended:
            break
    assert stops > 8


def _count(patched, left, *, can_exchange):
    """Stop when `left` has run out of steps."""

    def counted(real):
        def step(*arguments, **options):
            if next(left) == 0:
                raise Stopped
            return real(*arguments, **options)

        return step

    for name in STEPS:
        patched.setattr(Path, name, counted(getattr(Path, name)))
    patched.setattr(replacing, "exchange", counted(replacing.exchange if can_exchange else lambda one, other: False))


FOREIGN = {
    "another trainer's checkpoint": {"thesis.docx": "mine", "checkpoint/w.pt": "weights"},
    "a checkpoint alone": {"checkpoint/w.pt": "weights"},
    "an empty state": {"checkpoint/state.safetensors": ""},
    "somebody's log": {"metrics.jsonl": '{"loss": 1}\n'},
    "another program's recycle.json": {"recycle.json": '{"version": 1, "bins": ["paper"]}'},
    "a version to come": {"recycle.json": '{"version": 3, "task": "t", "cut": "2", "report": {}}'},
    "no object": {"recycle.json": "[1]"},
    "deep nesting": {"recycle.json": "[" * 100_000},
    "another program's training.json": {"checkpoint/training.json": '{"version": 3, "epochs": 2}'},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_that_is_no_run_is_refused_and_left_as_it_is(tmp_path, files):
    run = tmp_path / "run"
    for name, text in files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    for options in ({}, {"overwrite": True}, {"resume": True}, {"overwrite": True, "resume": True}):
        with pytest.raises(UsageError, match="is not empty and is no run"):
            runs.claim(str(run), **{"overwrite": False, "resume": False, **options})
    assert {name: (run / name).read_text() for name in files} == files
    assert len([path for path in run.rglob("*") if path.is_file()]) == len(files)


def test_a_run_through_a_link_is_replaced_where_it_lies(tmp_path):
    train(tmp_path / "disk" / "run", "old")
    (tmp_path / "run").symlink_to("disk/run")
    train(tmp_path / "run", "new", overwrite=True)
    assert (tmp_path / "run").is_symlink()
    assert trained(tmp_path / "disk" / "run") == "new"


def test_where_a_new_run_would_be_trained_a_foreign_folder_is_left_alone(tmp_path):
    train(tmp_path / "run", "old")
    beside(tmp_path / "run").mkdir()
    (beside(tmp_path / "run") / "mine").write_text("")
    with pytest.raises(UsageError, match=r"\.run\.new is no run"):
        runs.claim(str(tmp_path / "run"), overwrite=True, resume=False)


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert train("~/run", "new").output == tmp_path / "run"
    assert runs.read_info("~/run").cut == "2"
    with pytest.raises(UsageError, match="finished run"):
        runs.claim("~/run", overwrite=False, resume=False)


WRONG = {
    "task": [None, 1, ["a"]],
    "cut": [2, None, {}],
    "report": [[], "x", None],
    "max_length": ["x", 0, -1, True, 1.5],
    "multi_label": ["yes", 1, None],
    "settings": [[], "x"],
    "versions": [{"torch": 2}, []],
    "files": [{"a": 1}, [], "x"],
    "evaluated_on": ["x", [1]],
    "store": [1],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_recycle_json_of_any_content_is_one_line(tmp_path, name):
    about = INFO.to_json() | {"version": 1}
    for value in WRONG[name]:
        (tmp_path / "recycle.json").write_text(json.dumps(about | {name: value}))
        with pytest.raises(StoreError, match=rf"recycle\.json is not readable \({name} is ") as raised:
            runs.read_info(tmp_path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '"x"', "[" * 100_000, '{"a": ' * 100_000, "\xff", '{"version": true}']
)
def test_a_recycle_json_that_holds_no_object_is_one_line(tmp_path, text):
    (tmp_path / "recycle.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError, match=r"recycle\.json") as raised:
        runs.read_info(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["task", "cut", "report", "model"])
def test_a_recycle_json_that_lacks_a_field_is_one_line(tmp_path, name):
    about = {key: value for key, value in INFO.to_json().items() if key != name} | {"version": 1}
    (tmp_path / "recycle.json").write_text(json.dumps(about))
    with pytest.raises(StoreError, match=rf"it has no {name}"):
        runs.read_info(tmp_path)
