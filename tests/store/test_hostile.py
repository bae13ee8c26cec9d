"""Malicious stores are refused in one line; nothing is executed, and nothing is written outside of the store."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recycle_cli.errors import RecycleError
from recycle_cli.recipe import canonical_json
from recycle_cli.store import Store, export, gc, info, verify
from recycle_cli.store.layout import DOCUMENT_LIMIT, sealed

from .corpora import Corpus, recipe

FUZZ = settings(
    max_examples=int(os.environ.get("RECYCLE_FUZZ_EXAMPLES", "50")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def resealed(document):
    """Seal a document anew. An attacker can do that too, so no check may rely on the seal."""
    document["attributes"]["recycle"].pop("seal", None)
    return canonical_json(sealed(document))


class Victim:
    """A store with one segment, which tests rewrite."""

    def __init__(self, path):
        self.corpus = Corpus("int8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("recycle_cli.store.indexfile.PERSIST_SAMPLES", 5)
            self.store = self.corpus.store(path, range(12), codec="lz4")
        self.root = Path(self.store.path)
        self.folder = self.root / "segments" / self.store.segments[0].id
        self.files = {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def document(self):
        return json.loads(self.files[self.folder / "zarr.json"])

    def harm(self, document):
        (self.folder / "zarr.json").write_text(resealed(document))

    def restore(self):
        for path, content in self.files.items():
            path.write_bytes(content)

    def read_all(self):
        """Do everything that a user does with a store, except training."""
        store = Store.open(self.store.path)
        positions = store.lookup(*self.corpus.keys(range(12)))
        positions = positions[positions >= 0]
        store.lengths(positions)
        store.gather("2", positions)
        store.gather_rows("2", positions)
        store.keys(store.positions())


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    return Victim(tmp_path_factory.mktemp("hostile") / "s.zarr")


def refused(victim, document, match=None):
    victim.harm(document)
    outside = {path for path in victim.root.parent.rglob("*") if victim.root not in path.parents}
    with pytest.raises(RecycleError, match=match) as caught:
        victim.read_all()
    assert "\n" not in str(caught.value)
    assert verify(victim.store.path)["damaged"]
    assert outside == {path for path in victim.root.parent.rglob("*") if victim.root not in path.parents}
    victim.restore()


def test_verify_names_the_file_of_a_chunk_that_does_not_decode(victim):
    """The checksums fit."""
    name, document = "cuts/2/values/c.0.0", victim.document()
    content = bytes(16) + victim.files[victim.folder / name][16:]
    fitting = {"xxh3_128": xxhash.xxh3_128_hexdigest(content), "blocks": xxhash.xxh3_64_hexdigest(content)}
    document["attributes"]["recycle"]["files"][name] |= fitting
    victim.harm(document)
    (victim.folder / name).write_bytes(content)
    (damage,) = verify(victim.store.path)["damaged"]
    victim.restore()
    assert damage["file"] == name
    assert "a chunk of 0 bytes" in damage["problem"]


def metadata(document, name):
    return document["consolidated_metadata"]["metadata"][name]


@pytest.mark.parametrize(
    "name", ["../../../etc", "cuts/../../../x/values", "cuts//values", "/etc/passwd", "cuts/.x/values"]
)
def test_a_path_that_climbs_out_is_refused(victim, name):
    document = victim.document()
    arrays = document["consolidated_metadata"]["metadata"]
    arrays[name] = arrays.pop("cuts/2/values")
    refused(victim, document)


@pytest.mark.parametrize(
    "shape",
    [
        [1 << 61, 16],
        [-1, 16],
        [12.5, 16],
        [1 << 70, 16],
        [],
        [12, 0],
        ["12", 16],
        [True, 16],
        [0, 1 << 62],
        [1 << 32, 1 << 32, 1],
        [12, 1 << 31, 1 << 31],
    ],
)
def test_absurd_shapes_are_refused(victim, shape):
    for name in ("keys", "cuts/2/values"):
        document = victim.document()
        metadata(document, name)["shape"] = shape
        refused(victim, document)


@pytest.mark.parametrize(
    "codec", [{"name": "numcodecs.pickle"}, {"name": "gzip", "configuration": {"level": 9}}, "x", 7]
)
def test_codecs_off_the_list_are_refused(victim, codec):
    document = victim.document()
    inner = metadata(document, "cuts/2/values")["codecs"][0]["configuration"]["codecs"]
    inner[1] = codec
    refused(victim, document, "not of this format")
    document = victim.document()
    metadata(document, "keys")["codecs"].append(codec)
    refused(victim, document, "not of this format")


def test_huge_counts_are_refused_before_memory_is_asked_for(victim):
    for field in ("samples", "rows", "bytes"):
        document = victim.document()
        document["attributes"]["recycle"][field] = 1 << 60
        for name, count in (("keys", 1 << 60), ("digests", 1 << 60), ("offsets", (1 << 60) + 1)):
            metadata(document, name)["shape"][0] = count if field == "samples" else metadata(document, name)["shape"][0]
        if field != "bytes":
            refused(victim, document)
    document = victim.document()
    rows = metadata(document, "cuts/2/values")
    rows["codecs"][0]["configuration"]["chunk_shape"][0] = 1 << 38
    rows["chunk_grid"]["configuration"]["chunk_shape"][0] = 1 << 38
    refused(victim, document)


def test_a_document_of_100_mb_is_refused(victim):
    for path in (victim.folder / "zarr.json", victim.root / "zarr.json"):
        with path.open("r+b") as file:
            file.truncate(100_000_000)
        with pytest.raises(RecycleError, match=str(DOCUMENT_LIMIT)):
            victim.read_all()
        victim.restore()


def test_a_document_nested_too_deep_is_refused(victim):
    (victim.folder / "zarr.json").write_text("[" * 1_000_000)
    with pytest.raises(RecycleError, match="not JSON"):
        victim.read_all()
    victim.restore()


@pytest.mark.parametrize("offsets", [[5, 4], [0, 1 << 40], [-1, 3]])
def test_offsets_that_decrease_or_overrun_are_refused(victim, offsets):
    path = victim.folder / "offsets/c.0"
    content = np.fromfile(path, "<i8")
    content[3:5] = offsets
    content.tofile(path)
    with pytest.raises(RecycleError, match="must rise"):
        victim.read_all()
    victim.restore()


def test_links_out_of_the_store_are_refused(victim, tmp_path):
    for place in (victim.folder / "keys/c.0.0", victim.folder / "cuts", victim.folder):
        aside = tmp_path / "aside"
        place.rename(aside)
        place.symlink_to(aside)
        with pytest.raises(RecycleError, match=r"link|refused"):
            victim.read_all()
        assert verify(victim.store.path)["damaged"]
        place.unlink()
        aside.rename(place)
    victim.read_all()


def test_cuts_and_records_of_a_hostile_root_are_refused(tmp_path):
    store = Corpus().store(tmp_path / "s.zarr", range(3))
    original = json.loads((Path(store.path) / "zarr.json").read_text())
    for change in (
        {"recipe": {**original["attributes"]["recycle"]["recipe"], "cuts": {"../../x": "a"}}},
        {"recipe": {"modality": 1}},
        {"recipe": 7},
        {"fingerprint": "0" * 32},
        {"version": 2},
        {"version": "1"},
        {"provenance": [1]},
    ):
        document = json.loads(json.dumps(original))
        document["attributes"]["recycle"] |= change
        (Path(store.path) / "zarr.json").write_text(resealed(document))
        with pytest.raises(RecycleError):
            Store.open(store.path)


def test_a_recipe_with_a_cut_that_climbs_is_not_stored(tmp_path):
    with pytest.raises(RecycleError, match="cut is named"):
        Store.create_or_open(str(tmp_path / "s.zarr"), recipe(cuts=("../up",)), {})
    assert list(tmp_path.iterdir()) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=6,
)


def paths_of(node, prefix=()):
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        yield (*prefix, name)
        yield from paths_of(child, (*prefix, name))


def mutate(data, document):
    """Replace or remove a few random nodes of a document."""
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from(sorted(paths_of(document), key=str)))
        node = document
        for name in above:
            node = node[name]
        if data.draw(st.booleans()):
            node[last] = data.draw(JSON | st.sampled_from([0, -1, 1 << 31, 1 << 62, 1 << 64, "..", "/", []]))
        else:
            del node[last]


def survives(victim):
    """Every operation succeeds or raises a RecycleError of one line."""
    before = sorted(os.listdir(victim.root.parent))  # noqa: PTH208 - names only
    for action in (
        victim.read_all,
        lambda: info(victim.store.path, segments=True),
        lambda: verify(victim.store.path, workers=1),
        lambda: gc(victim.store.path, dry_run=True),
        lambda: export(victim.store.path, str(victim.root.parent / "out"), limit=3),
    ):
        try:
            action()
        except RecycleError as error:
            assert "\n" not in str(error)  # noqa: PT017 - passing is as good
        (victim.root.parent / "out").unlink(missing_ok=True)
    assert sorted(os.listdir(victim.root.parent)) == before  # noqa: PTH208 - names only


@FUZZ
@given(data=st.data())
def test_fuzzed_metadata_never_surprises(victim, data):
    paths = [victim.folder / "zarr.json", victim.root / "zarr.json", *victim.root.glob("index/*/zarr.json")]
    path = data.draw(st.sampled_from(paths))
    document = json.loads(victim.files[path])
    mutate(data, document)
    try:
        path.write_text(resealed(document))
    except (KeyError, TypeError, AttributeError):
        path.write_text(json.dumps(document))
    try:
        survives(victim)
    finally:
        victim.restore()


@FUZZ
@given(data=st.data())
def test_fuzzed_bytes_never_surprise(victim, data):
    files = sorted(path for path in victim.files if path.name.startswith("c."))
    path = data.draw(st.sampled_from(files))
    content = bytearray(victim.files[path])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 8))
        content[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8) | st.just((1 << 62).to_bytes(8, "little")))
    path.write_bytes(content)
    try:
        survives(victim)
    finally:
        victim.restore()
