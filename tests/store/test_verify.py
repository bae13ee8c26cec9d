import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from recycle_cli.errors import RecycleError, StoreError
from recycle_cli.store import Store, info, verify
from recycle_cli.store.files import BLOCK_BYTES

from .corpora import Corpus


@pytest.fixture
def store(tmp_path):
    return Corpus("int8", shape=(16,)).store(tmp_path / "s.zarr", range(40), segment_bytes=800, codec="lz4")


def files(segment):
    return sorted(path for path in Path(segment.where()).rglob("*") if path.is_file())


def repaired(store, *, refilled):
    """Repair the store; assert that the rest is sound and that writing the missing samples completes it."""
    corpus = Corpus("int8", shape=(16,))
    verify(store.path, repair=True)
    fresh = Store.create_or_open(store.path, corpus.recipe, {"model": "tiny"})
    assert verify(store.path)["damaged"] == []
    missing = np.flatnonzero(fresh.lookup(*corpus.keys(range(40))) < 0).tolist()
    assert missing == refilled
    corpus.check(corpus.store(store.path, missing), range(40))


def test_a_sound_store_is_clean(store):
    seen = []
    found = verify(store.path, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert found["damaged"] == []
    assert found["segments"] == len(store.segments) > 2
    sizes = {path: path.stat().st_size for segment in store.segments for path in files(segment)}
    rows = sum(size for path, size in sizes.items() if "cuts" in path.parts and path.name != "zarr.json")
    seals = sum((Path(segment.where()) / "zarr.json").stat().st_size for segment in store.segments)
    assert found["bytes"] == sum(sizes.values()) - seals
    assert max(seen) == (found["bytes"] + rows, found["bytes"] + rows), "rows are read twice, and counted so"


def held_by(store, *segments):
    """Numbers of the samples in these segments."""
    held = {key.tobytes() for segment in segments for key in segment.keys}
    keys, _ = Corpus().keys(range(40))
    return [number for number, key in enumerate(keys) if key.tobytes() in held]


def test_one_flipped_bit_anywhere_is_found_named_and_repaired(store):
    """Damage every file of a segment in turn; it has int8 rows with scales and a codec."""
    rng = np.random.default_rng(7)
    for number in range(40):
        segment = Store.open(store.path).segments[1]
        paths = files(segment)
        path = paths[number % len(paths)]
        content, lost = path.read_bytes(), held_by(store, segment)
        at, bit = int(rng.integers(len(content))), int(rng.integers(8))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        (damage, *more) = verify(store.path)["damaged"]
        name = path.relative_to(Path(segment.where())).as_posix()
        assert (damage["segment"], damage["file"], more) == (segment.id, name, [])
        assert name == "zarr.json" or damage["start"] <= at < damage["stop"]
        if number < len(paths):
            repaired(store, refilled=lost)
        else:
            path.write_bytes(content)
    assert number > 2 * len(paths)
    assert verify(store.path)["damaged"] == []


@pytest.mark.parametrize("harm", ["truncate", "remove"])
def test_every_file_that_is_cut_short_or_missing_is_named(store, harm):
    segment = store.segments[1]
    for path in files(segment):
        content = path.read_bytes()
        if harm == "remove":
            path.unlink()
        else:
            os.truncate(path, len(content) // 2)
        (damage, *more) = verify(store.path)["damaged"]
        name = path.relative_to(Path(segment.where())).as_posix()
        assert (damage["segment"], damage["file"], more) == (segment.id, name, [])
        path.write_bytes(content)
    assert verify(store.path)["damaged"] == []


@pytest.mark.parametrize("harm", ["flip", "truncate", "grow", "remove", "document", "link"])
def test_repair_sets_a_damaged_segment_aside_and_only_that(store, harm):
    segment = store.segments[1]
    held = segment.summary.samples
    first = store.segments[0].summary.samples
    values = Path(segment.where()) / "cuts/2/values/c.0.0"
    content = values.read_bytes()
    if harm == "flip":
        values.write_bytes(bytes([content[0] ^ 4]) + content[1:])
    elif harm == "truncate":
        values.write_bytes(content[:-5])
    elif harm == "grow":
        values.write_bytes(content + b"x")
    elif harm == "remove":
        values.unlink()
    elif harm == "document":
        (Path(segment.where()) / "zarr.json").unlink()
    else:
        values.rename(values.with_name("elsewhere"))
        values.symlink_to(values.with_name("elsewhere"))
    assert {damage["segment"] for damage in verify(store.path)["damaged"]} == {segment.id}
    repaired(store, refilled=list(range(first, first + held)))
    assert len(info(store.path)["set_aside"]) == 1


@pytest.mark.parametrize("name", ["keys", "digests", "offsets", "cuts/2/values", "cuts/2/scales"])
def test_arrays_swapped_between_segments_are_found_and_repaired(store, name):
    segments = store.segments[1:3]
    lost = held_by(store, *segments)
    a, b = (Path(segment.where()) / name for segment in segments)
    a.rename(a.with_name("swap"))
    b.rename(a)
    a.with_name("swap").rename(b)
    damaged = verify(store.path)["damaged"]
    assert {damage["segment"] for damage in damaged} == {segment.id for segment in segments}
    assert {str(Path(damage["file"]).parent) for damage in damaged} == {name}
    repaired(store, refilled=lost)


def test_a_damaged_root_is_set_aside_and_comes_back(store):
    root = Path(store.path) / "zarr.json"
    root.write_bytes(root.read_bytes().replace(b"tiny", b"tinY"))
    assert verify(store.path)["damaged"][0]["file"] == "zarr.json"
    repaired(store, refilled=[])


def test_the_range_of_the_damage_is_blocks(tmp_path):
    corpus = Corpus(shape=(1024,), longest=700)
    store = corpus.store(tmp_path / "s.zarr", range(20))
    path = Path(store.segments[0].where()) / "cuts/2/values/c.0.0"
    assert path.stat().st_size > 3 * BLOCK_BYTES
    with path.open("r+b") as file:
        file.seek(BLOCK_BYTES + 5)
        file.write(b"damage")
        file.seek(2 * BLOCK_BYTES)
        file.write(b"damage")
    (damage,) = verify(str(tmp_path / "s.zarr"))["damaged"]
    assert (damage["start"], damage["stop"]) == (BLOCK_BYTES, 3 * BLOCK_BYTES)


def test_a_wrong_index_is_found_and_rebuilt(tmp_path, monkeypatch):
    monkeypatch.setattr("recycle_cli.store.indexfile.PERSIST_SAMPLES", 10)
    corpus = Corpus("int8", shape=(16,))
    store = corpus.store(tmp_path / "s.zarr", range(40))
    (index,) = [path for path in (Path(store.path) / "index").iterdir() if path.is_dir()]
    assert verify(store.path)["damaged"] == []
    (index / "positions/c.0").write_bytes(np.roll(np.fromfile(index / "positions/c.0", "<i8"), 1).tobytes())
    assert verify(store.path)["damaged"][0]["segment"] == f"index/{index.name}"
    repaired(store, refilled=[])


def test_what_is_no_store_cannot_be_verified(tmp_path):
    with pytest.raises(StoreError, match="not a store"):
        verify(str(tmp_path))


@pytest.mark.parametrize("harm", ["truncate", "remove", "offsets", "shape", "document", "link", "codec"])
def test_reading_catches_what_it_can_at_no_cost(store, harm):
    folder = Path(store.segments[0].where())
    document = json.loads((folder / "zarr.json").read_text())
    if harm == "truncate":
        os.truncate(folder / "cuts/2/values/c.0.0", 100)
    elif harm == "remove":
        shutil.rmtree(folder / "cuts/2/values")
    elif harm == "offsets":
        np.roll(np.fromfile(folder / "offsets/c.0", "<i8"), 1).tofile(folder / "offsets/c.0")
    elif harm == "shape":
        document["consolidated_metadata"]["metadata"]["keys"]["shape"][0] += 1
    elif harm == "codec":
        document["consolidated_metadata"]["metadata"]["keys"]["codecs"].append({"name": "numcodecs.pickle"})
    elif harm == "link":
        folder.rename(folder.parents[1] / "elsewhere")
        folder.symlink_to(folder.parents[1] / "elsewhere")
    (folder / "zarr.json").write_text(json.dumps(document)) if harm in ("shape", "document", "codec") else None
    if harm == "document":
        (folder / "zarr.json").write_text(json.dumps(document)[:-1])
    corpus = Corpus("int8", shape=(16,))
    with pytest.raises(RecycleError, match=str(folder)):
        corpus.check(Store.open(store.path), range(3))
