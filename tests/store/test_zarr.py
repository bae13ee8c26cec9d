"""Other programs read a store without our code."""

import json

import numpy as np
import pytest
import zarr

from recycle_cli.recipe import DTYPES, has_scales
from recycle_cli.store import Store

from .corpora import Corpus


@pytest.mark.parametrize("dtype", DTYPES)
def test_zarr_reads_every_array_bit_for_bit(tmp_path, dtype):
    corpus = Corpus(dtype, cuts=("2", "pooled"), shape=(64,), longest=900)
    store = corpus.store(tmp_path / "s.zarr", range(20), segment_bytes=300_000)
    root = zarr.open_group(store.path, mode="r")
    arrays = {name: node for name, node in root.members(max_depth=None) if isinstance(node, zarr.Array)}
    assert len(arrays) == len(list(root["segments"].group_keys())) * (7 if has_scales(dtype) else 5)
    for segment in store._segments.list:
        for name in segment.specs:
            ours = segment._whole(name)
            theirs = arrays[f"segments/{segment.id}/{name}"][...]
            assert theirs.dtype == ours.dtype
            np.testing.assert_array_equal(theirs, ours)


def test_zarr_reads_one_sample_without_the_rest_of_its_shard(tmp_path):
    corpus = Corpus(shape=(64,), longest=3000)
    store = corpus.store(tmp_path / "s.zarr", range(12))
    (segment,) = store._segments.list
    values = zarr.open_array(f"{segment.where()}/cuts/2/values", mode="r")
    assert values.chunks[0] < values.shape[0] <= values.shards[0]
    start, stop = segment.offsets[5:7].tolist()
    np.testing.assert_array_equal(values[start:stop], corpus.encoded(5, "2").values)


def test_consolidated_metadata_says_what_the_arrays_say(tmp_path, corpus):
    corpus.store(tmp_path / "s.zarr", range(5))
    (segment,) = (tmp_path / "s.zarr/segments").glob("2*")
    document = json.loads((segment / "zarr.json").read_text())
    for name, metadata in document["consolidated_metadata"]["metadata"].items():
        assert json.loads((segment / name / "zarr.json").read_text()) == metadata


def test_the_index_on_disk_is_zarr_too(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr("recycle_cli.store.indexfile.PERSIST_SAMPLES", 10)
    store = corpus.store(tmp_path / "s.zarr", range(30))
    ((_, index),) = zarr.open_group(store.path, mode="r")["index"].groups()
    assert (np.diff(index["high"][...].astype(float)) > 0).all()
    assert sorted(index["positions"][...].tolist()) == list(range(30))
    corpus.check(Store.open(store.path), range(30))
