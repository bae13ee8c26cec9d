import multiprocessing
from contextlib import suppress

import pytest

from recycle_cli.errors import RecycleError, UsageError
from recycle_cli.store.cache import BLOCK, FOLDER, BlockCache, cache_from_environment
from recycle_cli.store.liveness import unique_id

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
    """Bytes of the blocks below the cache's folder."""
    total = 0
    blocks = folder / FOLDER
    for path in blocks.iterdir() if blocks.exists() else ():
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
    (block,) = [path for path in (tmp_path / FOLDER).iterdir() if path.name != "lock"]
    block.write_bytes(b"x" + block.read_bytes()[1:])
    assert cached[0:9] == remote.content[0:9]
    assert remote.fetched == 2


def test_leftovers_of_a_crash_go_at_the_next_start(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / f"{unique_id()}.part").write_bytes(bytes(100))
    BlockCache(tmp_path, CAP)
    assert size_on_disk(tmp_path) == 0


def test_only_the_caches_own_files_are_counted_and_removed(tmp_path):
    """Beside the blocks' folder and in it; files of other programs, folders and links, also of names like a block's."""
    others = ["thesis.docx", "film.part", "0123456789abcdef0123456789abcdef-0", f"{FOLDER}/photo.jpg"]
    others += [f"{FOLDER}/film.part", f"{FOLDER}/notes-1", f"{FOLDER}/{'F' * 32}-0"]
    (tmp_path / FOLDER).mkdir()
    for name in others:
        (tmp_path / name).write_bytes(bytes(3 * BLOCK))
    (tmp_path / FOLDER / f"{'0' * 32}-0").symlink_to(tmp_path / "thesis.docx")
    (tmp_path / FOLDER / f"{'0' * 32}-1").mkdir()
    (tmp_path / FOLDER / f"{unique_id()}.part").mkdir()
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    remote = Remote(9 * BLOCK)
    for cap in (CAP, 2 * BLOCK):
        cached = BlockCache(tmp_path, cap).over(remote, "a")
        for number in range(9):
            assert cached[number * BLOCK : number * BLOCK + 1] == remote.content[number * BLOCK : number * BLOCK + 1]
    after = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    assert set(before) < set(after)
    assert all((tmp_path / name).stat().st_size == 3 * BLOCK for name in others)
    assert 0 < BlockCache(tmp_path, CAP).bytes_used() <= CAP


@pytest.mark.parametrize("taken", ["a file", "a lock of another program", "a link as the lock"])
def test_a_place_that_is_taken_is_refused_and_left_alone(tmp_path, taken):
    precious = tmp_path / "precious"
    precious.write_bytes(b"of somebody else")
    if taken == "a file":
        precious = precious.rename(tmp_path / FOLDER)
    else:
        (tmp_path / FOLDER).mkdir()
        lock = tmp_path / FOLDER / "lock"
        precious = precious.rename(lock) if taken == "a lock of another program" else precious
        if precious != lock:
            lock.symlink_to(precious)
    with pytest.raises(RecycleError):
        BlockCache(tmp_path, CAP)
    assert precious.read_bytes() == b"of somebody else"


def test_the_environment_sets_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("RECYCLE_CACHE", raising=False)
    assert cache_from_environment() is None
    monkeypatch.setenv("RECYCLE_CACHE", str(tmp_path))
    assert cache_from_environment().cap == 10 << 30
    monkeypatch.setenv("RECYCLE_CACHE_BYTES", "1 GB")
    with pytest.raises(UsageError, match="1 GB"):
        cache_from_environment()
    monkeypatch.setenv("RECYCLE_CACHE_BYTES", "10")
    with pytest.raises(UsageError, match=r"RECYCLE_CACHE_BYTES=.*the size of one block"):
        cache_from_environment()
