"""Cache remote blocks on the local disk, under a hard cap that processes share; the least recently used go first.

The blocks lie in a folder of their own, `recycle-blocks-1`, below the one that the user names. A file of the cache is
known by its name; anything else in there is not counted, not read and not removed.
"""

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

from recycle_cli.errors import UsageError
from recycle_cli.settings.variables import CACHE, CACHE_BYTES
from recycle_cli.store.chunked import Bytes
from recycle_cli.store.files import storage_errors
from recycle_cli.store.liveness import unique_id

BLOCK = 1 << 20
"""Bytes fetched and kept at once: four inner chunks of a row array."""

KEEP_SHARE = 0.9
"""Eviction goes on until the blocks fill only this share of the cap, so that not every new block has to evict one."""

FOLDER = "recycle-blocks-1"
"""Folder of the blocks below the one that the user names; the number counts up when their form changes."""

_CHECK = 8
_PART = ".part"
_LOCK = "lock"
_MARK = b"blocks of recycle, which removes them as it needs: "
"""What the lock begins with. The number of bytes in use follows."""

_OURS = re.compile(r"[0-9a-f]{32}-[0-9]+|[0-9]{8}T[0-9]{12}-[0-9a-f]{12}\.part")
"""A block: the digest of its object's address and its number there. A block being written: a unique id."""


class BlockCache:
    """At most `cap` bytes of blocks below `folder`, which several processes may share, and which may hold other files.

    Raises UsageError if the place of the blocks is taken by something else.
    """

    def __init__(self, folder: Path, cap: int) -> None:
        if cap < BLOCK + _CHECK:
            raise UsageError(
                f"{CACHE_BYTES}={cap}: expected at least {BLOCK + _CHECK} bytes, the size of one block; to read "
                f"without a cache, leave {CACHE} unset"
            )
        self.folder, self.cap = folder / FOLDER, cap
        with storage_errors(folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked() as total:
                total.write(self._evict(0))

    def over(self, remote: Bytes, name: str) -> "CachedBytes":
        """Read remote bytes through the cache. `name` must be unique to the content; sealed objects never change."""
        return CachedBytes(self, remote, xxhash.xxh3_128_hexdigest(f"{name}|{len(remote)}".encode()))

    def get(self, name: str) -> bytes | None:
        """Return a block, or None if it is not in the cache or fails its checksum."""
        path = self.folder / name
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return data[:-_CHECK] if xxhash.xxh3_64_digest(data[:-_CHECK]) == data[-_CHECK:] else None

    def put(self, name: str, block: bytes) -> None:
        """Keep a block, evicting others first if need be. On a full disk nothing is kept, and no error is raised."""
        with suppress(OSError), self._locked() as total:
            size = len(block) + _CHECK
            used = total.read()
            if used + size > self.cap:
                used = self._evict(size)
            # Count the block before writing it: after a crash the count is then too high, never too low.
            total.write(used + size)
            scratch = self.folder / f"{unique_id()}{_PART}"
            try:
                scratch.write_bytes(block + xxhash.xxh3_64_digest(block))
                scratch.replace(self.folder / name)
            finally:
                scratch.unlink(missing_ok=True)

    def bytes_used(self) -> int:
        """Bytes of all cached files."""
        return sum(size for _, size, _ in self._blocks())

    def _evict(self, coming: int) -> int:
        """Remove what a crash left and the least recently used blocks until `coming` bytes fit; call it under the lock.

        Returns the bytes that remain.
        """
        blocks = sorted(self._blocks())
        used = sum(size for _, size, _ in blocks)
        target = self.cap if used + coming <= self.cap else int(self.cap * KEEP_SHARE)
        for _, size, path in blocks:
            if path.suffix == _PART or used + coming > max(target, coming):
                path.unlink(missing_ok=True)
                used -= size
        return used

    def _blocks(self) -> Iterator[tuple[float, int, Path]]:
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if _OURS.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(found.st_mode):
                            yield found.st_mtime, found.st_size, Path(entry.path)

    @contextmanager
    def _locked(self) -> Iterator["_Total"]:
        path = self.folder / _LOCK
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.pread(descriptor, len(_MARK), 0) not in (b"", _MARK):
                raise UsageError(
                    f"{path}: belongs to something other than recycle's cache; set {CACHE} to another folder"
                )
            yield _Total(descriptor)
        finally:
            os.close(descriptor)


class _Total:
    """The number of bytes in the cache, stored in the lock file so that all processes see it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> int:
        return int.from_bytes(os.pread(self._descriptor, 8, len(_MARK)), "little")

    def write(self, count: int) -> None:
        os.pwrite(self._descriptor, _MARK + count.to_bytes(8, "little"), 0)


class CachedBytes:
    """Bytes of a remote object, read through the cache one block at a time."""

    def __init__(self, cache: BlockCache, remote: Bytes, name: str) -> None:
        self._cache, self._remote, self._name = cache, remote, name

    def __len__(self) -> int:
        return len(self._remote)

    def __getitem__(self, span: slice) -> bytes:
        first, last = span.start // BLOCK, -(-span.stop // BLOCK)
        blocks = [self._block(number) for number in range(first, last)]
        return b"".join(blocks)[span.start - first * BLOCK : span.stop - first * BLOCK]

    def _block(self, number: int) -> bytes:
        name = f"{self._name}-{number}"
        block = self._cache.get(name)
        if block is None:
            block = bytes(self._remote[number * BLOCK : min((number + 1) * BLOCK, len(self))])
            self._cache.put(name, block)
        return block


def cache_from_environment() -> BlockCache | None:
    """Open the cache in the folder RECYCLE_CACHE, with a cap of RECYCLE_CACHE_BYTES (default 10 GiB); None if unset."""
    folder = os.environ.get(CACHE)
    if not folder:
        return None
    cap = os.environ.get(CACHE_BYTES, str(10 << 30))
    if not cap.isdecimal():
        raise UsageError(f"{CACHE_BYTES}={cap}: expected a number of bytes")
    return BlockCache(Path(folder), int(cap))
