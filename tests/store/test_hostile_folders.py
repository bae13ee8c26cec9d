"""Stores with links and pipes in place of folders and files: nothing hangs, and nothing outside is touched."""

import os
import signal

import pytest

from recycle_cli.errors import DamageError, RecycleError
from recycle_cli.store import Store, gc, info, verify

from .corpora import Corpus


@pytest.fixture(autouse=True)
def no_waiting():
    """Fail if a read waits for a pipe, which would take for ever."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waits for a pipe"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def outside(tmp_path):
    """Somebody else's folder, with files that look like a leftover, an old index and a damaged segment."""
    for name in ("20200101T000000000000-000000000000", "other"):
        (tmp_path / "outside" / name).mkdir(parents=True)
        (tmp_path / "outside" / name / "precious").write_text("mine")
    return tmp_path / "outside"


@pytest.fixture
def store(tmp_path):
    return Corpus().store(tmp_path / "s.zarr", range(10))


def everything(path):
    """All operations that read or change a store."""
    return (
        lambda: info(path),
        lambda: verify(path),
        lambda: verify(path, repair=True),
        lambda: gc(path, damaged=True, dry_run=True),
        lambda: gc(path, damaged=True),
        lambda: Corpus().check(Store.open(path), range(10)),
        lambda: Corpus().store(path, range(10, 20)),
    )


@pytest.mark.parametrize("group", ["segments", "tmp", "index", "damaged"])
def test_a_link_for_a_group_is_refused_and_what_it_leads_to_is_left_alone(store, tmp_path, outside, group):
    (tmp_path / "s.zarr" / group).rename(tmp_path / "aside")
    (tmp_path / "s.zarr" / group).symlink_to(outside)
    for action in everything(store.path):
        with pytest.raises(DamageError, match="a link where the store has a folder"):
            action()
    assert sorted(path.name for path in outside.rglob("precious")) == ["precious", "precious"]


@pytest.mark.parametrize("group", ["segments", "tmp", "index", "damaged"])
def test_a_link_inside_a_group_is_not_followed(store, tmp_path, outside, group):
    name = "20200101T000000000000-000000000000"
    own = f"segments-{name}-1577836800000000000" if group == "damaged" else name  # as `verify --repair` names it
    link = tmp_path / "s.zarr" / group / own
    link.symlink_to(outside / name)
    for action in everything(store.path):
        try:
            action()
        except RecycleError as error:
            assert "\n" not in str(error)  # noqa: PT017 - passing is as good
    gc(store.path, damaged=True)
    assert not link.is_symlink()
    assert sorted(path.name for path in outside.rglob("precious")) == ["precious", "precious"]
    Corpus().check(Store.open(store.path), range(10))


@pytest.mark.parametrize(
    "name", ["keys/c.0.0", "offsets/c.0", "cuts/2/values/c.0.0", "zarr.json", "cuts/2/values/zarr.json"]
)
def test_a_pipe_for_a_file_is_refused(store, tmp_path, name):
    path = tmp_path / "s.zarr/segments" / store.segments[0].id / name
    path.unlink()
    os.mkfifo(path)
    if "values/zarr" not in name:  # only verify reads that document
        with pytest.raises(DamageError, match="pipe"):
            Corpus().check(Store.open(store.path), range(10))
    assert {damage["segment"] for damage in verify(store.path, repair=True)["damaged"]} == {store.segments[0].id}
    assert verify(store.path)["damaged"] == []


def test_pipes_for_the_root_a_lock_and_an_index_are_no_trap(store, tmp_path):
    os.mkfifo(tmp_path / "s.zarr/tmp/20200101T000000000000-000000000000.lock")
    os.mkfifo(tmp_path / "s.zarr/index/20200101T000000000000-000000000000")
    for action in everything(store.path):
        try:
            action()
        except RecycleError as error:
            assert "\n" not in str(error)  # noqa: PT017 - passing is as good
    (tmp_path / "s.zarr/zarr.json").unlink()
    os.mkfifo(tmp_path / "s.zarr/zarr.json")
    with pytest.raises(DamageError, match="pipe"):
        Store.open(store.path)
