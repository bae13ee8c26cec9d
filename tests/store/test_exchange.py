"""A store written by one installation opens in another; RECYCLE_OTHER_PYTHON names another Python to try."""

import os
import subprocess
import sys

import numpy as np
import pytest

from recycle_cli.recipe import DTYPES

from . import exchange
from .corpora import Corpus


@pytest.mark.parametrize("writer", [0, 1] if "RECYCLE_OTHER_PYTHON" in os.environ else [0])
def test_two_installations_read_each_other(tmp_path, writer):
    pythons = [sys.executable, os.environ.get("RECYCLE_OTHER_PYTHON", sys.executable)]
    for python, verb in ((pythons[writer], "write"), (pythons[1 - writer], "check")):
        subprocess.run([python, exchange.__file__, verb, str(tmp_path)], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensorstore_reads_every_array_bit_for_bit(tmp_path, dtype, codec):
    tensorstore = pytest.importorskip("tensorstore")
    corpus = Corpus(dtype, cuts=("1", "2"), shape=(64,), longest=900)
    store = corpus.store(tmp_path / "s.zarr", range(20), segment_bytes=300_000, codec=codec)
    for segment in store.segments:
        for name in segment.specs:
            place = {"driver": "file", "path": f"{segment.where()}/{name}"}
            theirs = tensorstore.open({"driver": "zarr3", "kvstore": place}, read=True).result().read().result()
            ours = segment._row_array(name) if name.endswith(("values", "scales")) else segment._whole(name)
            np.testing.assert_array_equal(theirs, ours[0 : len(ours)])
