"""The files that records which could not be used are listed in."""

import pytest

from recycle_cli.cli.arguments import failures_beside, of_shard
from recycle_cli.settings import Shard


@pytest.mark.parametrize(
    ("store", "file"),
    [
        ("out/acts.zarr/", "out/acts.zarr.failures.jsonl"),
        ("s3://bucket/acts", "acts.failures.jsonl"),
        ("https://host/acts?token=secret", "acts.failures.jsonl"),
    ],
)
def test_failures_are_listed_beside_a_local_store_and_here_for_another(store, file):
    assert failures_beside(store) == file


@pytest.mark.parametrize(
    ("file", "own"),
    [
        ("out.d/acts.failures.jsonl", "out.d/acts.failures.0-of-4.jsonl"),
        ("out.d/failures", "out.d/failures.0-of-4"),
        (".failures", ".failures.0-of-4"),
    ],
)
def test_each_shard_lists_its_failures_in_a_file_of_its_own(file, own):
    assert of_shard(file, Shard(0, 4)) == own
    assert of_shard(file, None) == file
