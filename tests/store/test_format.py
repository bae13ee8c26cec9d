"""Write a store from docs/store-format.md alone, using nothing of the package but the recipe."""

import json
import os
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import xxhash

from recycle_cli.errors import StoreError
from recycle_cli.keys import Sample, keys_of
from recycle_cli.recipe import Recipe
from recycle_cli.store import Store, verify

RECIPE = Recipe("text", {"model_type": "foreign"}, {"2": "d"}, "tok", dtype="float32")
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}


def canonical(document):
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sealed(document):
    document["attributes"]["recycle"]["seal"] = xxhash.xxh3_128_hexdigest(canonical(document))
    return canonical(document)


def array(values, dtype, names, rows_in_chunk=None):
    """Write an array's document and file; as a shard if `rows_in_chunk` is given."""
    shape = list(values.shape)
    chunk, codecs, data = shape, [LITTLE], values.tobytes()
    if rows_in_chunk:
        inner = [rows_in_chunk, *shape[1:]]
        count = -(-shape[0] // rows_in_chunk)
        size = values.nbytes // shape[0] * rows_in_chunk
        data += bytes(count * size - len(data))
        index = np.array([[number * size, size] for number in range(count)], "<u8").tobytes()
        data += index + google_crc32c.value(index).to_bytes(4, "little")
        chunk = [count * rows_in_chunk, *shape[1:]]
        sharding = {
            "chunk_shape": inner,
            "codecs": [LITTLE],
            "index_codecs": [LITTLE, {"name": "crc32c"}],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": 0,
        "codecs": codecs,
        "dimension_names": names,
        "attributes": {},
    }
    return document, ".".join(["c", *("0" for _ in shape)]), data


def write(path: Path, rows, keys, digests, offsets, version=1):
    for group in ("segments", "index", "tmp", "damaged"):
        (path / group).mkdir(parents=True)
        (path / group / "zarr.json").write_bytes(canonical(GROUP))
    fingerprint = xxhash.xxh3_128_hexdigest(canonical({"version": 1, **RECIPE.to_json()}))
    root = {"version": version, "recipe": RECIPE.to_json(), "fingerprint": fingerprint, "provenance": {"by": "hand"}}
    (path / "zarr.json").write_bytes(sealed({**GROUP, "attributes": {"recycle": root}}))
    arrays = {
        "keys": array(keys, "uint8", ["sample", "byte"]),
        "digests": array(digests, "uint8", ["sample", "byte"]),
        "offsets": array(offsets, "int64", ["boundary"]),
        "cuts/2/values": array(rows, "float32", ["row", None], rows_in_chunk=4),
    }
    documents = {"cuts": GROUP, "cuts/2": GROUP} | {name: document for name, (document, _, _) in arrays.items()}
    contents = {f"{name}/{file}": data for name, (_, file, data) in arrays.items()}
    contents |= {f"{name}/zarr.json": canonical(document) for name, document in documents.items()}
    record = {
        "version": version,
        "fingerprint": fingerprint,
        "samples": len(keys),
        "rows": len(rows),
        "bytes": sum(map(len, contents.values())),
        "files": {
            name: {
                "bytes": len(data),
                "xxh3_128": xxhash.xxh3_128_hexdigest(data),
                "blocks": xxhash.xxh3_64_hexdigest(data),
            }
            for name, data in contents.items()
        },
    }
    draft = path / "tmp/w/hand-made"
    for name, data in contents.items():
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).write_bytes(data)
    consolidated = {"kind": "inline", "must_understand": False, "metadata": documents}
    document = {**GROUP, "attributes": {"recycle": record}, "consolidated_metadata": consolidated}
    (draft / "zarr.json").write_bytes(sealed(document))
    draft.rename(path / "segments/hand-made")
    os.rmdir(path / "tmp/w")  # noqa: PTH106 - as the page says


@pytest.fixture
def foreign():
    keys, digests = keys_of([Sample(str(n), {"text": f"text {n}"}) for n in range(3)])
    rows = np.random.default_rng(0).standard_normal((10, 6)).astype("<f4")
    return rows, keys, digests, np.array([0, 4, 5, 10], "<i8")


def test_a_store_written_from_the_page_is_a_store(tmp_path, foreign):
    write(tmp_path / "s.zarr", *foreign)
    rows, keys, digests, _ = foreign
    store = Store.create_or_open(str(tmp_path / "s.zarr"), RECIPE, {})
    assert store.provenance == {"by": "hand"}
    positions = store.lookup(keys, digests)
    np.testing.assert_array_equal(store.read("2", int(positions[2])), rows[5:10])
    assert verify(store.path)["damaged"] == []


def test_a_newer_version_is_refused_by_its_number_and_left_alone(tmp_path, foreign):
    write(tmp_path / "s.zarr", *foreign, version=2)
    before = (tmp_path / "s.zarr/zarr.json").read_bytes()
    for attempt in (
        lambda: Store.open(str(tmp_path / "s.zarr")),
        lambda: Store.create_or_open(str(tmp_path / "s.zarr"), RECIPE, {}),
        lambda: verify(str(tmp_path / "s.zarr"), repair=True),
    ):
        with pytest.raises(StoreError, match=r"version 2.*upgrade"):
            attempt()
    assert (tmp_path / "s.zarr/zarr.json").read_bytes() == before
