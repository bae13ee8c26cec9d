import subprocess
import sys

import numpy as np
import pytest

from recycle_cli.errors import DamageError, MismatchError, StorageError, StoreError, UsageError
from recycle_cli.recipe import DTYPES
from recycle_cli.store import Store, decode, encode

from .corpora import Corpus, recipe


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(8,), (3, 2, 2), ()])
def test_rows_come_back_as_they_were_appended(tmp_path, dtype, shape):
    corpus = Corpus(dtype, cuts=("2", "layer3.1"), shape=shape)
    store = corpus.store(tmp_path / "s.zarr", range(50), segment_bytes=60)
    assert len(store) == 50
    assert len(list((tmp_path / "s.zarr/segments").iterdir())) > 3
    corpus.check(Store.open(str(tmp_path / "s.zarr"), corpus.recipe), range(50))


def test_positions_hold_for_every_way_to_read(tmp_path):
    corpus = Corpus("int8")
    store = corpus.store(tmp_path / "s.zarr", range(40), segment_bytes=1000)
    numbers = [3, 39, 0, 3, 17]
    positions = store.lookup(*corpus.keys(numbers))
    lengths = store.lengths(positions)
    assert lengths.tolist() == [corpus.length(number) for number in numbers]
    out, scales = store.gather("2", positions)
    assert out.shape == (5, max(lengths), *store.row_shape("2"))
    assert scales.shape == out.shape[:2]
    flat, flat_scales = store.gather_rows("2", positions)
    start = 0
    for slot, number in enumerate(numbers):
        expected, stop = corpus.encoded(number, "2"), start + lengths[slot]
        np.testing.assert_array_equal(out[slot, : lengths[slot]], expected.values)
        np.testing.assert_array_equal(scales[slot, : lengths[slot]], expected.scales)
        np.testing.assert_array_equal(flat[start:stop], expected.values)
        np.testing.assert_array_equal(flat_scales[start:stop], expected.scales)
        assert not out[slot, lengths[slot] :].any()
        assert not scales[slot, lengths[slot] :].any()
        start = stop
    assert start == len(flat)


def test_lookup_misses_are_minus_one(tmp_path, corpus):
    store = corpus.store(tmp_path / "s.zarr", range(0, 40, 2), segment_bytes=500)
    found = store.lookup(*corpus.keys(range(40))) >= 0
    assert found.tolist() == [number % 2 == 0 for number in range(40)]
    assert store.lookup(*corpus.keys([])).shape == (0,)


def test_an_empty_store_finds_nothing_and_has_no_row_shape(tmp_path, corpus):
    store = corpus.store(tmp_path / "s.zarr")
    assert len(store) == store.rows == store.bytes == 0
    assert store.lookup(*corpus.keys([1])).tolist() == [-1]
    with pytest.raises(StorageError, match="no sealed samples"):
        store.row_shape("2")


def test_duplicates_between_segments_count_once(tmp_path, corpus):
    corpus.store(tmp_path / "s.zarr", range(20), segment_bytes=300)
    store = corpus.store(tmp_path / "s.zarr", range(10, 30), segment_bytes=300)
    assert len(store) == 30
    first = store.lookup(*corpus.keys(range(30)))
    again = Store.open(store.path)
    np.testing.assert_array_equal(again.lookup(*corpus.keys(range(30))), first)
    corpus.check(store, range(30))


def test_samples_without_rows_are_kept(tmp_path):
    corpus = Corpus()
    corpus.length = lambda number: number % 2
    store = corpus.store(tmp_path / "s.zarr", range(6))
    assert store.lengths(store.lookup(*corpus.keys(range(6)))).tolist() == [0, 1, 0, 1, 0, 1]
    corpus.store(tmp_path / "t.zarr", [0, 2])
    corpus.check(Store.open(str(tmp_path / "t.zarr")), [0, 2])


def test_another_recipe_is_refused_with_the_field(tmp_path, corpus):
    corpus.store(tmp_path / "s.zarr", range(3))
    for other, field in (
        (recipe("float32"), "dtype"),
        (recipe(cuts=("3",)), "cuts: 2 in the store, 3 asked for"),
        (recipe(pad=1), "extra.pad"),
    ):
        with pytest.raises(MismatchError, match=field):
            Store.open(str(tmp_path / "s.zarr"), other)
        with pytest.raises(MismatchError, match=field):
            Store.create_or_open(str(tmp_path / "s.zarr"), other, {})


def test_what_is_no_store_is_refused(tmp_path, corpus):
    with pytest.raises(StoreError, match="none: no such file or folder; name a store"):
        Store.open(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=r"not a store \(no zarr.json\)"):
        Store.open(str(tmp_path / "empty"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/photo.jpg").touch()
    with pytest.raises(StoreError, match="not empty"):
        Store.create_or_open(str(tmp_path / "full"), corpus.recipe, {})
    (tmp_path / "zarr").mkdir()
    (tmp_path / "zarr/zarr.json").write_text('{"zarr_format":3,"node_type":"group","attributes":{}}')
    with pytest.raises(StoreError, match="not a store of recycle"):
        Store.open(str(tmp_path / "zarr"))
    store = corpus.store(tmp_path / "s.zarr", range(3))
    with pytest.raises(UsageError, match="no cut '7'"):
        store.read("7", 0)


def test_a_key_with_another_digest_is_damage(tmp_path, corpus):
    store = corpus.store(tmp_path / "s.zarr", range(9))
    keys, digests = corpus.keys(range(9))
    digests = digests.copy()
    digests[4, 5] ^= 1
    with pytest.raises(DamageError, match=keys[4].tobytes().hex()):
        store.lookup(keys, digests)


def test_keys_that_share_their_first_half_are_told_apart(tmp_path, corpus):
    store = Store.create_or_open(str(tmp_path / "s.zarr"), corpus.recipe, {})
    keys, digests = (array.copy() for array in corpus.keys(range(6)))
    keys[:, :8] = keys[0, :8]
    with store.writer() as writer:
        writer.append(keys, digests, np.ones(6, int), {"2": encode(np.arange(48.0).reshape(6, 8), "float16")})
    store.refresh()
    assert len(store) == 6
    assert sorted(store.lookup(keys, digests).tolist()) == [0, 1, 2, 3, 4, 5]
    assert store.lookup(keys, digests).tolist() == [0, 1, 2, 3, 4, 5]


def test_provenance_is_kept_and_is_no_part_of_the_recipe(tmp_path, corpus):
    corpus.store(tmp_path / "s.zarr")
    assert Store.create_or_open(str(tmp_path / "s.zarr"), corpus.recipe, {"model": "renamed"}).provenance == {
        "model": "tiny"
    }


def test_importing_the_store_loads_neither_torch_nor_zarr():
    heavy = "{'torch', 'transformers', 'zarr', 'numcodecs', 'datasets'}"
    code = f"import sys, recycle_cli.store; sys.exit(' '.join({heavy} & sys.modules.keys()) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bfloat16_agrees_with_torch():
    torch = pytest.importorskip("torch")
    rows = np.random.default_rng(0).standard_normal((64, 33)).astype(np.float32) * 1e3
    stored = encode(rows, "bfloat16").values
    expected = torch.from_numpy(rows).bfloat16().view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(stored, expected)
    np.testing.assert_array_equal(decode(stored, None, "bfloat16"), torch.from_numpy(rows).bfloat16().float().numpy())
