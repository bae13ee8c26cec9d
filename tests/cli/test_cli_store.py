"""The store's commands on the command line: what they print, and how they exit."""

import json
import os
import random
import sys
from pathlib import Path

import pytest

from recycle_cli.cli.main import main
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings
from recycle_cli.store import Store
from recycle_cli.store.layout import dumps, sealed
from recycle_cli.verbs.precompute import precompute
from tests.records import records, write_csv
from tests.store.corpora import Corpus
from tests.store.faults import failing


@pytest.fixture
def recycle(monkeypatch, capsys):
    """Run a command in this process: its exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr("recycle_cli.cli.main.raise_on_signals", lambda: None)
        monkeypatch.setattr(sys, "argv", ["recycle", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run


@pytest.fixture
def corpus(tmp_path):
    return CorpusSettings((str(write_csv(tmp_path / "train.csv", records(40))),))


@pytest.fixture
def refill(corpus, tmp_path, tiny_bert):
    """A precompute of what the store lacks."""
    filling = PrecomputeSettings(("2",), "float32", batch_tokens=80, segment_bytes=20_000)
    path, model = str(tmp_path / "acts.zarr"), ModelSettings(str(tiny_bert), None, 16)
    return lambda: precompute(corpus, path, model, filling)


@pytest.fixture
def store(refill, tmp_path):
    refill()
    return tmp_path / "acts.zarr"


def segments_of(store):
    return sorted(path for path in store.glob("segments/*") if path.is_dir())


def flip(store):
    """Each kind of harm gives what must be named: (segment, file) and a byte that its range must hold."""
    file = segments_of(store)[1] / "cuts/2/values/c.0.0"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return {(file.parts[-5], "cuts/2/values/c.0.0"): len(data) // 2}


def truncate(store):
    file = segments_of(store)[1] / "digests/c.0.0"
    os.truncate(file, file.stat().st_size - 9)
    return {(file.parts[-3], "digests/c.0.0"): file.stat().st_size}


def remove(store):
    (segments_of(store)[0] / "offsets/c.0").unlink()
    return {(segments_of(store)[0].name, "offsets/c.0"): 0}


def swap(store):
    one, two = (segment / "keys" for segment in segments_of(store)[:2])
    one.rename(store / "aside")
    two.rename(one)
    (store / "aside").rename(two)
    sizes = {(array / "c.0.0").stat().st_size for array in (one, two)}
    return {(array.parent.name, "keys/c.0.0"): min(sizes) if len(sizes) > 1 else 0 for array in (one, two)}


def test_info_tells_what_is_there(recycle, store):
    code, out, err = recycle("store", "info", store, "--json", "--segments")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["samples"] == 40
    assert found["origins"] == ["record"]
    assert found["segments"] == len(found["segment_list"]) > 1
    code, out, err = recycle("store", "info", store, "--segments")
    assert (code, out) == (0, "")
    assert found["fingerprint"] in err
    assert "Segment list" in err


def test_info_counts_views(recycle, tmp_path):
    Corpus().store(tmp_path / "s.zarr", range(3), origins=frozenset({"record", "view a#1", "view a#2"}))
    assert "record, 2 views" in recycle("store", "info", tmp_path / "s.zarr")[2]
    Corpus().store(tmp_path / "s.zarr", range(5, 8))
    assert "record, 2 views, not said by all segments" in recycle("store", "info", tmp_path / "s.zarr")[2]


def test_info_fits_a_narrow_terminal_and_is_not_steered_by_what_it_shows(recycle, store, monkeypatch):
    monkeypatch.chdir(store.parent)
    root = Path("acts.zarr/zarr.json")
    document = json.loads(root.read_text())
    names = {"\x1b]0;pwned\x07\x1b[31mkey": "x", "[/b]\u202e": "y", "line\rfeed": "z"}
    document["attributes"]["recycle"]["provenance"] = {"model": "[/bold] \x1b[2J\n[red]tiny", **names}
    document["attributes"]["recycle"].pop("seal")
    root.write_bytes(dumps(sealed(document)))
    code, _, err = recycle("store", "info", "acts.zarr", "--segments")
    assert code == 0
    assert max(map(len, err.splitlines())) <= 80
    assert "[/bold] \N{REPLACEMENT CHARACTER}[2J" in err
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(err)
    assert "[/b]\N{REPLACEMENT CHARACTER}" in err


def test_a_whole_store_verifies(recycle, store):
    code, out, _ = recycle("store", "verify", store, "--json")
    assert (code, json.loads(out)["damaged"]) == (0, [])
    code, _, err = recycle("store", "verify", store)
    assert code == 0
    assert "nothing" in err


@pytest.mark.parametrize("harm", [flip, truncate, remove, swap])
def test_damage_is_named_and_repaired_and_just_that_is_refilled(recycle, store, refill, harm):
    held = {segment.id: segment.summary.samples for segment in Store.open(str(store)).segments}
    harmed = harm(store)
    code, out, err = recycle("store", "verify", store, "--json")
    named = {(damage["segment"], damage["file"]): damage for damage in json.loads(out)["damaged"]}
    assert code == 4
    assert f"recycle store verify {store} --repair" in err
    assert {segment for segment, _ in named} == {segment for segment, _ in harmed}
    for place, at in harmed.items():
        assert named[place]["start"] <= at < named[place]["stop"]
    code, _, err = recycle("store", "verify", store, "--repair")
    assert code == 0
    assert all(segment in err for segment, _ in harmed)
    assert refill().new_samples == sum(held[segment] for segment, _ in harmed) < 40
    assert recycle("store", "verify", store, "--json")[0] == 0


def test_a_flipped_bit_at_100_places_over_every_file_of_a_segment_is_named_and_repaired(recycle, store, refill):
    """Each file of a segment in turn; after the first flip in each, all is repaired by `--repair` and a precompute."""
    draw = random.Random(7)
    for number in range(100):
        segment = segments_of(store)[1]
        files = sorted(path for path in segment.rglob("*") if path.is_file())
        file = files[number % len(files)]
        whole = file.read_bytes()
        content, at = bytearray(whole), draw.randrange(len(whole))
        content[at] ^= 1 << draw.randrange(8)
        held = {one.id: one.summary.samples for one in Store.open(str(store)).segments}
        file.write_bytes(content)
        code, out, _ = recycle("store", "verify", store, "--json")
        (damage,) = json.loads(out)["damaged"]
        assert (code, damage["segment"], damage["file"]) == (4, segment.name, file.relative_to(segment).as_posix())
        assert damage["file"] == "zarr.json" or damage["start"] <= at < damage["stop"]
        if number < len(files):
            assert recycle("store", "verify", store, "--repair")[0] == 0
            assert refill().new_samples == held[segment.name] < 40
        else:
            file.write_bytes(whole)
    assert number > 5 * len(files)
    assert recycle("store", "verify", store, "--json")[0] == 0
    assert len(Store.open(str(store))) == 40


def test_what_cannot_be_read_has_an_exit_of_its_own(recycle, store, monkeypatch):
    monkeypatch.setattr("recycle_cli.store.patient.PAUSES", (0.0,))
    victim = segments_of(store)[1] / "cuts/2/values/c.0.0"
    with failing(store, "pread", name=str(victim)):
        for options in ((), ("--repair",)):
            code, out, err = recycle("store", "verify", store, "--json", *options)
            found = json.loads(out)
            assert (code, found["damaged"], found["set_aside"]) == (7, [], [])
            assert [one["file"] for one in found["unread"]] == ["cuts/2/values/c.0.0"]
            assert "could not be read" in err
        truncate(store)
        assert recycle("store", "verify", store)[0] == 4, "damage comes first"
        code, _, err = recycle("store", "verify", store, "--repair")
        assert code == 7
    with failing(store, "open", name="acts.zarr/zarr.json"):
        code, _, err = recycle("store", "verify", store)
    assert (code, len(err.splitlines())) == (7, 1)


def test_repair_says_how_many_samples_it_set_aside(recycle, store):
    held = {segment.id: segment.summary.samples for segment in Store.open(str(store)).segments}
    ((segment, _),) = flip(store)
    code, out, err = recycle("store", "verify", store, "--repair")
    assert (code, out) == (0, "")
    assert f"with {held[segment]} samples" in err


def test_gc_counts_first_and_then_collects(recycle, store):
    planned = json.loads(recycle("store", "gc", store, "--dry-run", "--json")[1])
    done = json.loads(recycle("store", "gc", store, "--json")[1])
    assert planned["removed"] == done["removed"] > 1
    found = json.loads(recycle("store", "info", store, "--json")[1])
    assert (found["segments"], found["samples"]) == (1, 40)


@pytest.mark.parametrize(("format", "name"), [("safetensors", "rows.safetensors"), ("numpy", "rows")])
def test_export_writes_the_rows(recycle, store, tmp_path, format, name):
    out = tmp_path / name
    code, said, _ = recycle("store", "export", store, out, "--format", format, "--limit", 3, "--json")
    assert code == 0
    assert json.loads(said)["samples"] == 3
    assert out.exists()


def test_a_folder_that_is_no_store_is_refused(recycle, tmp_path):
    for command in ("info", "verify", "gc"):
        code, out, err = recycle("store", command, tmp_path)
        assert (code, out) == (4, "")
        assert len(err.splitlines()) == 1


def test_memory_that_does_not_suffice_is_one_line(recycle, store, monkeypatch):
    def greedy(*arguments, **options):
        raise MemoryError("Unable to allocate 9.00 TiB\nfor an array")

    monkeypatch.setattr("recycle_cli.store.info", greedy)
    code, out, err = recycle("store", "info", store)
    assert (code, out) == (1, "")
    assert err == (
        "recycle: not enough memory (Unable to allocate 9.00 TiB for an array); "
        "use a smaller batch, --memory or --max-length\n"
    )


@pytest.mark.parametrize(("text", "count"), [("4GiB", 4 << 30), ("500MB", 500_000_000), ("1000", 1000), ("1.5k", 1500)])
def test_sizes_are_read_as_people_write_them(text, count):
    from recycle_cli.settings.reading import size

    assert size(text) == count


@pytest.mark.parametrize("text", ["", "0", "-1", "4 bananas", "GiB"])
def test_a_size_that_is_none_is_a_usage_error(recycle, tmp_path, text):
    code, _, err = recycle("precompute", tmp_path / "x.csv", tmp_path / "s", f"--max-disk={text}")
    assert code == 2
    assert "--max-disk" in err
