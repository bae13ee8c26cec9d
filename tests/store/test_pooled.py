"""A store of pooled vectors goes through merge, gc, remove, export and verify as one of rows does."""

import numpy as np
import pytest
from safetensors import safe_open

from recycle_cli.errors import MismatchError
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings
from recycle_cli.store import Store, export, gc, merge, verify
from recycle_cli.store.remove import remove
from recycle_cli.verbs.precompute import precompute
from tests.contents import contents
from tests.records import records, write_csv

POOL = ("mean", "cls", "max", "last")
COUNT = 30


@pytest.fixture
def filled(tmp_path, tiny_bert):
    """Fill a store of the folder with the records from a first one to a last."""

    def fill(name, first, end, **options):
        path = write_csv(tmp_path / f"{first}-{end}.csv", records(COUNT)[first:end])
        settings = PrecomputeSettings(**{"cuts": ("every",), "pool": POOL, **options})
        precompute(
            CorpusSettings((str(path),)), str(tmp_path / name), ModelSettings(str(tiny_bert), None, 16), settings
        )
        return str(tmp_path / name)

    return fill


@pytest.mark.parametrize("dtype", ["float16", "int4"])
def test_merged_collected_and_removed_it_holds_the_same_vectors(filled, dtype):
    whole, one, other = (
        filled(name, *part, dtype=dtype)
        for name, part in {"whole": (0, COUNT), "one": (0, 20), "other": (10, COUNT)}.items()
    )
    expected = contents(whole)
    assert merge(one, other)["added"] == 10
    assert contents(other) == expected
    assert gc(other)["rewritten"] == 2
    assert (len(Store.open(other).segments), contents(other)) == (1, expected)
    gone = sorted(expected)[::3]
    found = remove(Store.open(other), [np.frombuffer(b"".join(gone), np.uint8).reshape(-1, 16)])
    assert found["samples"] == len(gone)
    assert contents(other) == {key: one for key, one in expected.items() if key not in gone}
    assert not verify(other)["damaged"]


def test_an_export_names_the_poolings_that_its_rows_are(filled, tmp_path):
    store = filled("store", 0, 5)
    export(store, str(tmp_path / "out.safetensors"), cut="0")
    with safe_open(tmp_path / "out.safetensors", "np") as exported:
        assert exported.metadata()["pool"].split(",") == list(POOL)
        assert exported.get_tensor("offsets").tolist() == list(range(0, 21, len(POOL)))
        assert np.isfinite(exported.get_tensor("values")).all()


def test_stores_of_other_poolings_or_of_rows_are_not_merged(filled):
    store = filled("store", 0, 5)
    for name, pool in {"fewer": POOL[:2], "rows": ()}.items():
        other = filled(name, 0, 5, pool=pool)
        before = contents(other)
        with pytest.raises(MismatchError):
            merge(store, other)
        assert contents(other) == before
