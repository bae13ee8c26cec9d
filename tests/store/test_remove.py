"""Removing samples for good, merging stores, and finding samples."""

import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from recycle_cli.errors import DamageError, MismatchError, StorageError, StoreError, UsageError
from recycle_cli.recipe import has_scales
from recycle_cli.store import Store, find, gc, info, merge, remove, verify
from recycle_cli.store.liveness import maintenance
from recycle_cli.store.origins import origins_in
from tests.contents import contents

from .corpora import Corpus

pytest.importorskip("obstore")


def removed(store, numbers, **options):
    return remove(Store.open(store.path), [Corpus().keys(numbers)[0]], **options)


def held(path, numbers):
    """Which of the samples the store at `path` holds."""
    found = Store.open(str(path)).lookup(*Corpus().keys(numbers))
    return [number for number, position in zip(numbers, found.tolist(), strict=True) if position >= 0]


def holds_bytes(folder, needle):
    """Whether any file below the folder contains these bytes."""
    return any(needle in path.read_bytes() for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("numbers", [[3], range(0, 30, 3), range(10), range(30), [3, 3, 99], []])
def test_removed_samples_are_gone_from_every_file_and_the_others_stay(tmp_path, corpus, numbers):
    store = corpus.store(tmp_path / "s.zarr", range(30), segment_bytes=1, batch=10)
    rest = [number for number in range(30) if number not in numbers]
    before = info(store.path)["bytes"]
    planned = removed(store, numbers, dry_run=True)
    assert held(store.path, range(30)) == list(range(30))
    done = removed(store, numbers)
    assert {**planned, "seconds": 0, "freed_bytes": 0} == {**done, "seconds": 0, "freed_bytes": 0}
    assert (done["samples"], done["copies"]) == (30 - len(rest), 30 - len(rest))
    assert done["freed_bytes"] == before - info(store.path)["bytes"]
    again = Store.open(store.path)
    corpus.check(again, rest)
    assert len(again) == len(rest)
    assert sorted(contents(store.path)) == sorted(key.tobytes() for key in corpus.keys(rest)[0]) if rest else True
    for number in set(numbers) & set(range(30)):
        key, digest = corpus.keys([number])
        for trace in (key.tobytes(), digest.tobytes(), corpus.encoded(number, "2").values.tobytes()):
            assert not holds_bytes(store.path, trace)
    assert verify(store.path)["damaged"] == []
    assert removed(store, numbers)["copies"] == 0


def test_a_dry_run_estimates_by_rows_and_not_by_samples(tmp_path, corpus):
    store = corpus.store(tmp_path / "s.zarr", range(30), segment_bytes=10**6)
    (segment,) = store.segments
    lengths = dict(zip(map(bytes, segment.keys), np.diff(segment.offsets).tolist(), strict=True))
    rows = {number: lengths[bytes(corpus.keys([number])[0][0])] for number in range(30)}
    some = sorted(rows, key=rows.__getitem__)[-5:]
    share = sum(rows[number] for number in some) / sum(rows.values())
    assert share > 5 / 30
    planned = removed(store, some, dry_run=True)["freed_bytes"]
    assert planned == pytest.approx(share * segment.summary.bytes, rel=0.01)


@pytest.mark.parametrize(
    ("dtype", "codec"), [("int8", "lz4"), ("int4", "none"), ("bfloat16", "none"), ("float32", "zstd")]
)
def test_what_stays_keeps_cuts_scales_and_codec(tmp_path, dtype, codec):
    corpus = Corpus(dtype, cuts=("1", "2"))
    store = corpus.store(tmp_path / "s.zarr", range(20), codec=codec)
    remove(store, [corpus.keys([4, 7])[0]])
    rest = [number for number in range(20) if number not in (4, 7)]
    again = Store.open(store.path)
    corpus.check(again, rest)
    assert again.codec == codec
    if has_scales(dtype):
        position = again.lookup(*corpus.keys([19]))
        np.testing.assert_array_equal(again.gather_rows("2", position)[1], corpus.encoded(19, "2").scales)


def test_all_copies_go_and_segments_without_one_stay_as_they_are(tmp_path, corpus):
    for numbers in (range(10), range(5, 15), range(20, 30)):
        store = corpus.store(tmp_path / "s.zarr", numbers)
    untouched = max(Path(store.path, "segments").glob("2*"))
    inode = untouched.stat().st_ino
    done = removed(store, [7, 12])
    assert (done["samples"], done["copies"], done["removed"]) == (2, 3, 2)
    assert untouched.stat().st_ino == inode
    expected = [*(number for number in range(15) if number not in (7, 12)), *range(20, 30)]
    assert held(store.path, range(40)) == expected
    assert info(store.path)["duplicates"] == 0, "copies of the rewritten segments are dropped on the way"


def test_an_index_over_removed_segments_goes_too(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr("recycle_cli.store.indexfile.PERSIST_SAMPLES", 10)
    store = corpus.store(tmp_path / "s.zarr", range(40))
    assert len(list(Path(store.path, "index").glob("2*"))) == 1
    monkeypatch.setattr("recycle_cli.store.indexfile.PERSIST_SAMPLES", 1000)
    removed(store, [7])
    assert list(Path(store.path, "index").glob("2*")) == []
    assert not holds_bytes(store.path, corpus.keys([7])[0].tobytes()[7::-1]), "the half that an index keeps"
    corpus.check(Store.open(store.path), range(8, 40))


def test_what_is_set_aside_or_being_written_is_told(tmp_path, corpus):
    corpus.store(tmp_path / "s.zarr", range(10))
    store = corpus.store(tmp_path / "s.zarr", range(20, 30))
    victim = Path(store.segments[0].where("cuts/2/values/c.0.0"))
    victim.write_bytes(b"x" + victim.read_bytes()[1:])
    with pytest.raises(DamageError, match="verify --repair"):
        removed(store, [1, 21])
    assert held(store.path, [1, 21]) == [1, 21]
    verify(store.path, repair=True)
    with store.writer():
        done = removed(store, [1, 21])
    assert len(done["set_aside"]) == 1
    assert done["writers"] == 1
    gc(store.path, damaged=True)
    assert removed(store, [1, 21])["set_aside"] == []


def flip(segment, file):
    """Change one bit of a sealed file."""
    victim = Path(segment.where(file))
    content = victim.read_bytes()
    victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


ROWS, KEYS = "cuts/2/values/c.0.0", "keys/c.0.0"


def test_what_stays_as_it_is_need_not_be_sound_but_for_its_keys(tmp_path, corpus):
    """Segments: the first and the second share samples 8 and 9, the third is alone."""
    for numbers in (range(10), range(8, 20), range(20, 30)):
        store = corpus.store(tmp_path / "s.zarr", numbers)
    first, second, third = store.by_age().list
    flip(third, ROWS)
    assert removed(store, [0])["copies"] == 1, "a segment that is not rewritten is not read"
    (first,) = [one for one in Store.open(store.path).segments if one.id not in (second.id, third.id)]
    flip(second, ROWS)
    for victims in ([10], [1, 10]):
        with pytest.raises(DamageError, match=rf"{second.id}.*verify --repair"):
            removed(store, victims)
    assert held(store.path, range(1, 8)) == list(range(1, 8))
    flip(second, ROWS)
    flip(first, ROWS)
    assert removed(store, range(20, 25), dry_run=True)["copies"] == 5
    assert removed(store, range(20, 30))["removed"] == 1, "nothing of a damaged segment stays"
    flip(second, KEYS)
    for dry_run in (True, False):
        with pytest.raises(DamageError, match=rf"{second.id}/keys/c\.0\.0: the checksum differs"):
            removed(store, [3], dry_run=dry_run)


def test_the_segment_that_holds_the_copy_that_stays_must_be_sound(tmp_path, corpus):
    for numbers in (range(10), range(8, 20)):
        store = corpus.store(tmp_path / "s.zarr", numbers)
    flip(store.by_age().list[0], ROWS)
    with pytest.raises(DamageError, match="verify --repair"):
        removed(store, [12])  # 8 and 9 of the second segment would be left in the first alone
    with pytest.raises(DamageError, match="verify --repair"):
        gc(store.path)
    assert held(store.path, range(20)) == list(range(20))


def test_how_samples_were_made_of_records_outlives_every_rewriting(tmp_path, corpus):
    path, one, other = tmp_path / "s.zarr", frozenset({"record", "view flip(0.5)/1#1"}), frozenset({"--task t"})
    corpus.store(path, range(10), origins=one)
    corpus.store(path, range(5, 15), origins=other)
    assert Store.open(str(path)).origins == one | other
    gc(str(path))
    assert [segment.origins for segment in Store.open(str(path)).segments] == [one | other]
    removed(Store.open(str(path)), [3])
    assert Store.open(str(path)).origins == one | other
    merge(str(path), str(tmp_path / "m.zarr"))
    assert Store.open(str(tmp_path / "m.zarr")).origins == one | other
    corpus.store(path, range(20, 25))
    gc(str(path))
    assert [segment.origins for segment in Store.open(str(path)).segments] == [one | other | {"?"}]


@pytest.mark.parametrize("said", [None, [], "record", [1], {"record": 1}])
def test_origins_of_another_form_say_nothing(said):
    assert origins_in({} if said is None else {"origins": said}) == {"?"}


def test_readers_and_writers_go_on(tmp_path, corpus):
    store = corpus.store(tmp_path / "s.zarr", range(20))
    early, late = Store.open(store.path), Store.open(store.path)
    corpus.check(early, range(20))
    with store.writer() as writer:
        corpus.append(writer, range(30, 35))
        removed(store, [3])
        corpus.append(writer, range(35, 40))
    corpus.check(early, range(20))  # what it has mapped stays readable
    with pytest.raises(StoreError, match="run the command again"):
        late.read("2", 0)
    late.refresh()
    corpus.check(late, [*range(3), *range(4, 20), *range(30, 40)])


def test_remove_waits_its_turn_and_refuses_a_bucket(tmp_path, corpus, memory):
    store = corpus.store(tmp_path / "s.zarr", range(5))
    with maintenance(tmp_path / "s.zarr/tmp"), pytest.raises(StorageError, match="wait for it"):
        removed(store, [1])
    with pytest.raises(UsageError, match=r"recycle store remove.*copy"):
        removed(corpus.store(memory, range(5)), [1])


@pytest.mark.parametrize("numbers", [range(20, 40), range(10, 30), range(20), range(0)])
@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_merge_adds_what_is_lacking_and_nothing_twice(tmp_path, numbers, codec):
    corpus = Corpus("int8", cuts=("1", "2"))
    target = corpus.store(tmp_path / "a.zarr", range(20))
    source = corpus.store(tmp_path / "b.zarr", numbers, segment_bytes=300, codec=codec)
    before = contents(source.path)
    done = merge(source.path, target.path)
    assert (done["samples"], done["added"]) == (len(numbers), len(set(numbers) - set(range(20))))
    assert done["present"] == done["samples"] - done["added"]
    every = sorted({*range(20), *numbers})
    again = Store.open(target.path)
    corpus.check(again, every)
    assert len(contents(target.path)) == len(every)
    assert contents(source.path) == before
    assert verify(target.path)["damaged"] == []
    assert merge(source.path, target.path)["added"] == 0


def test_merge_makes_a_new_store_and_leaves_duplicates_behind(tmp_path, corpus):
    corpus.store(tmp_path / "a.zarr", range(10))
    source = corpus.store(tmp_path / "a.zarr", range(5, 15))
    assert merge(source.path, str(tmp_path / "new.zarr"))["added"] == 15
    assert contents(tmp_path / "new.zarr").keys() == {key.tobytes() for key in corpus.keys(range(15))[0]}
    assert Store.open(str(tmp_path / "new.zarr")).provenance == source.provenance


def test_merge_to_and_from_a_bucket(tmp_path, corpus, memory):
    corpus.store(memory, range(10))
    local = corpus.store(tmp_path / "a.zarr", range(5, 15))
    assert merge(memory, local.path)["added"] == 5
    assert merge(local.path, memory)["added"] == 5
    assert contents(memory).keys() == contents(local.path).keys()


def test_merge_refuses_other_recipes_the_store_itself_and_damage(tmp_path, corpus):
    target = corpus.store(tmp_path / "a.zarr", range(5))
    for other in (Corpus("float32"), Corpus(cuts=("3",))):
        shutil.rmtree(tmp_path / "b.zarr", ignore_errors=True)
        with pytest.raises(MismatchError, match="in the store"):
            merge(other.store(tmp_path / "b.zarr", range(3)).path, target.path)
    (tmp_path / "link.zarr").symlink_to(tmp_path / "a.zarr")
    for same in (target.path, f"{target.path}/", str(tmp_path / "link.zarr"), str(tmp_path / "b.zarr/../a.zarr")):
        with pytest.raises(UsageError, match="the same store"):
            merge(same, target.path)
    source = corpus.store(tmp_path / "c.zarr", range(20), segment_bytes=1, batch=10)
    victim = Path(source.by_age().list[1].where("cuts/2/values/c.0.0"))
    content = victim.read_bytes()
    victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamageError, match="verify --repair"):
        merge(source.path, target.path)
    corpus.check(Store.open(target.path), range(10))  # what was sound is there already
    victim.write_bytes(content)
    assert merge(source.path, target.path)["added"] == 10


def test_find_names_every_copy(tmp_path):
    corpus = Corpus("int8", cuts=("1", "2"))
    corpus.store(tmp_path / "s.zarr", range(10))
    store = corpus.store(tmp_path / "s.zarr", range(5, 15))
    for number, count in ((3, 1), (7, 2), (14, 1), (99, 0)):
        found = find(Store.open(store.path), *corpus.keys([number]))
        assert (found["held"], len(found["copies"])) == (count > 0, count)
        assert found["cuts"] == ({"1": [8], "2": [8]} if count else {})
        for copy in found["copies"]:
            (segment,) = [one for one in Store.open(store.path).segments if one.id == copy["segment"]]
            assert copy["rows"] == corpus.length(number)
            rows = segment.values("2")[copy["first_row"] : copy["end_row"]]
            np.testing.assert_array_equal(rows, corpus.encoded(number, "2").values)


def test_what_a_writer_publishes_meanwhile_goes_too(tmp_path, corpus, monkeypatch):
    module = import_module("recycle_cli.store.remove")
    store = corpus.store(tmp_path / "s.zarr", range(20), batch=10)
    usual, added = module.replace, []

    def replace(store, plan, *more):
        freed = usual(store, plan, *more)
        if not added:
            added.append(corpus.store(tmp_path / "s.zarr", [3, 25]))
        return freed

    monkeypatch.setattr(module, "replace", replace)
    done = removed(store, [3])
    assert (done["samples"], done["copies"]) == (1, 2)
    assert held(store.path, [3, 25, 4]) == [25, 4]
