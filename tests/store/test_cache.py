import multiprocessing
from contextlib import suppress

import pytest

from recycle_cli.errors import UsageError
from recycle_cli.store.cache import BLOCK, BlockCache, cache_from_environment

CAP = 5 * BLOCK


class Remote:
    """Remote bytes that count how often they are fetched."""

    def __init__(self, size):
        self.content = bytes(range(251)) * (size // 251 + 1)
        self.size, self.fetched = size, 0

    def __len__(self):
        return self.size

    def __getitem__(self, span):
        self.fetched += 1
        return self.content[: self.size][span]


def size_on_disk(folder):
    total = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process may just be evicting it
            total += path.stat().st_size if path.name != "lock" else 0
    return total


def test_what_was_read_once_is_not_fetched_again(tmp_path):
    remote = Remote(3 * BLOCK + 17)
    for _ in range(2):  # the second time as after a restart
        cached = BlockCache(tmp_path, CAP).over(remote, "a")
        for start, stop in ((0, 10), (BLOCK - 5, BLOCK + 5), (3 * BLOCK, 3 * BLOCK + 17), (5, 3 * BLOCK), (7, 7)):
            assert cached[start:stop] == remote.content[start:stop]
    assert remote.fetched == 4


def test_the_cap_holds_across_restarts_and_the_least_used_goes(tmp_path):
    remote = Remote(30 * BLOCK)
    for start in range(0, 30, 3):
        cached = BlockCache(tmp_path, CAP).over(remote, "a")
        for number in range(start, start + 3):
            cached[number * BLOCK : number * BLOCK + 1]
            cached[0:1]
            assert size_on_disk(tmp_path) <= CAP
    assert remote.fetched < 30 + 5
    assert BlockCache(tmp_path, 2 * BLOCK).bytes_used() <= 2 * BLOCK


def fill(folder, name):
    cached = BlockCache(folder, CAP).over(Remote(20 * BLOCK), name)
    for number in range(20):
        cached[number * BLOCK : number * BLOCK + 1]
        assert size_on_disk(folder) <= CAP + 2 * BLOCK  # another process may just be evicting a block


def test_processes_share_one_cap(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fill, args=(tmp_path, name)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert size_on_disk(tmp_path) <= CAP


def test_a_block_damaged_on_the_disk_is_fetched_again(tmp_path):
    remote = Remote(BLOCK)
    cached = BlockCache(tmp_path, CAP).over(remote, "a")
    assert cached[0:9] == remote.content[0:9]
    (block,) = [path for path in tmp_path.iterdir() if path.name != "lock"]
    block.write_bytes(b"x" + block.read_bytes()[1:])
    assert cached[0:9] == remote.content[0:9]
    assert remote.fetched == 2


def test_leftovers_of_a_crash_go_at_the_next_start(tmp_path):
    (tmp_path / "x.part").write_bytes(bytes(100))
    BlockCache(tmp_path, CAP)
    assert size_on_disk(tmp_path) == 0


def test_the_environment_sets_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("RECYCLE_CACHE", raising=False)
    assert cache_from_environment() is None
    monkeypatch.setenv("RECYCLE_CACHE", str(tmp_path))
    assert cache_from_environment().cap == 10 << 30
    monkeypatch.setenv("RECYCLE_CACHE_BYTES", "1 GB")
    with pytest.raises(UsageError, match="1 GB"):
        cache_from_environment()
    monkeypatch.setenv("RECYCLE_CACHE_BYTES", "10")
    with pytest.raises(UsageError, match="holds no block"):
        cache_from_environment()
