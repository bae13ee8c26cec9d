"""Read and write files: synced writes with block checksums, mapped reads, and errors that name the remedy."""

import errno
import mmap
import os
import resource
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from recycle_cli.errors import DamageError, StorageError
from recycle_cli.store.layout import DOCUMENT_LIMIT

FLUSH_BYTES = 16 << 20
"""A growing file is flushed in the background each time it has grown by this many bytes."""

BLOCK_BYTES = 4 << 20
"""Bytes that share a checksum; damage is narrowed down to such blocks."""

Mark = tuple[int, int, xxhash.xxh3_128, xxhash.xxh3_64]

_FORBIDDEN = (errno.EACCES, errno.EPERM)
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
"""What file systems without hard links say when asked for one."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


@contextmanager
def storage_errors(path: object) -> Iterator[None]:
    """Turn an OSError into a StorageError whose one line names the path and the remedy."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        raise StorageError(f"{where}: {_remedy(error)}") from error


class HashedFile:
    """A new file, written from front to back, with xxh3_128 of the whole and xxh3_64 of each block of 4 MiB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._file = path.open("xb", buffering=0)
        self._whole = xxhash.xxh3_128()
        self._block = xxhash.xxh3_64()
        self._blocks: list[str] = []
        self._flusher: ThreadPoolExecutor | None = None
        self._flush: Future[None] | None = None
        self._flushed = 0

    def write(self, data: Any) -> None:
        """Append the bytes of a contiguous, non-empty buffer."""
        view = memoryview(data).cast("B")
        _write_all(self._file.fileno(), view)
        self._hash(view)
        if self.bytes - self._flushed >= FLUSH_BYTES and (self._flush is None or self._flush.done()):
            self._start_flush()

    def mark(self) -> Mark:
        """Remember the current end of the file, to rewind to."""
        return self.bytes, len(self._blocks), self._whole.copy(), self._block.copy()

    def rewind(self, mark: Mark) -> None:
        """Truncate the file to where it ended at the mark."""
        self.bytes, blocks, self._whole, self._block = mark
        del self._blocks[blocks:]
        os.ftruncate(self._file.fileno(), self.bytes)
        os.lseek(self._file.fileno(), self.bytes, os.SEEK_SET)

    def close(self) -> dict[str, Any]:
        """Close the file and return {bytes, xxh3_128, blocks}. It is on the disk only after a sync."""
        self.abandon()
        if self._flush is not None:
            self._flush.result()
        if self.bytes % BLOCK_BYTES:
            self._blocks.append(self._block.hexdigest())
        return {"bytes": self.bytes, "xxh3_128": self._whole.hexdigest(), "blocks": "".join(self._blocks)}

    def abandon(self) -> None:
        """Close the file without completing its checksums."""
        if self._flusher is not None:
            self._flusher.shutdown()
        self._file.close()

    def _start_flush(self) -> None:
        """Start writing the data so far to the disk, so that little is left to wait for at sealing."""
        if self._flush is not None:
            self._flush.result()
        self._flusher = self._flusher or ThreadPoolExecutor(1)
        self._flush = self._flusher.submit(os.fdatasync, self._file.fileno())
        self._flushed = self.bytes

    def _hash(self, view: memoryview) -> None:
        self._whole.update(view)
        start = 0
        while start < len(view):
            stop = min(start + BLOCK_BYTES - self.bytes % BLOCK_BYTES, len(view))
            self._block.update(view[start:stop])
            self.bytes += stop - start
            if self.bytes % BLOCK_BYTES == 0:
                self._blocks.append(self._block.hexdigest())
                self._block.reset()
            start = stop


def write_file(path: Path, data: Any) -> dict[str, Any]:
    """Write a whole new file and return its record, as HashedFile.close does."""
    file = HashedFile(path)
    try:
        if memoryview(data).nbytes:
            file.write(data)
        return file.close()
    except BaseException:
        file.abandon()
        raise


def read_document(path: Path) -> bytes:
    """Read a small metadata file, never through a symlink. Raises DamageError if it is missing or too large."""
    with _opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > DOCUMENT_LIMIT:
            raise DamageError(f"{path}: {size} bytes of metadata, more than the {DOCUMENT_LIMIT} that are read")
        return b"".join(iter(lambda: os.read(descriptor, DOCUMENT_LIMIT), b""))


class FileBytes:
    """A file of `size` bytes that is opened and read anew for each slice, so that it takes no memory in between.

    Each read happens inside `guard()`.
    """

    def __init__(self, path: Path, size: int, guard: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._path, self._size, self._guard = path, size, guard
        with _opened(path) as descriptor:
            _check_size(path, descriptor, size)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, span: slice) -> bytes:
        with storage_errors(self._path), self._guard(), _opened(self._path) as descriptor:
            data = os.pread(descriptor, span.stop - span.start, span.start)
        if len(data) != span.stop - span.start:
            raise DamageError(f"{self._path}: shorter than it was; run `recycle store verify --repair`")
        return data


def map_file(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """Map a file of exactly `size` bytes, read-only. Raises DamageError if it is missing or has another size."""
    try:
        return _map(path, size)
    except OSError as error:
        # Python keeps a descriptor open for each map, and a store of 100 GB has more files than many shells allow.
        if error.errno not in _TOO_MANY or not _allow_more_files():
            raise
        return _map(path, size)


def require_uncut(array: npt.NDArray[Any], where: str) -> None:
    """Raise DamageError if the file that an array is mapped from is shorter now: touching it would end the process."""
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "_mmap", None) or getattr(base, "base", None)
    if base is not None and base.size() < len(base):
        raise DamageError(f"{where}: shorter than it was; run `recycle store verify --repair`")


def _map(path: Path, size: int) -> npt.NDArray[np.uint8]:
    with _opened(path) as descriptor:
        _check_size(path, descriptor, size)
        if not size:
            return np.empty(0, np.uint8)
        with open(descriptor, "rb", closefd=False) as file:
            return np.memmap(file, dtype=np.uint8, mode="r", shape=(size,)).view(np.ndarray)


def _allow_more_files() -> bool:
    """Raise the soft limit on open files to the hard one. Returns False if it was there already."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a regular file for reading, never through a symlink. Raises DamageError if there is no such file."""
    try:
        # Without O_NONBLOCK, opening a pipe would wait for ever for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise DamageError(f"{path}: missing; run `recycle store verify --repair`") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise DamageError(f"{path}: a link or a file where the store has none; refused") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DamageError(f"{path}: a folder or a pipe where the store has a file; refused")
        yield descriptor
    finally:
        os.close(descriptor)


def _check_size(path: Path, descriptor: int, size: int) -> None:
    found = os.fstat(descriptor).st_size
    if found != size:
        raise DamageError(f"{path}: {found} bytes, {size} were sealed; run `recycle store verify --repair`")


def _write_all(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]


def _remedy(error: OSError) -> str:
    if error.errno in _FULL:
        return "the disk is full; free some space and run again, what was sealed is kept"
    if error.errno == errno.EROFS:
        return "cannot be written, the disk is read-only; choose another folder"
    if error.errno in _FORBIDDEN:
        return "permission is denied; change the permissions, or choose another folder"
    if error.errno in _TOO_MANY:
        return "too many open files; raise the limit (`ulimit -n 65536`) or merge segments (`recycle store gc`)"
    if error.errno == errno.ENOMEM:
        return (
            "cannot be mapped: memory is full, or this process has as many maps as Linux allows it; merge segments "
            "(`recycle store gc --segment-bytes`), or allow more maps (`sysctl vm.max_map_count=1000000`)"
        )
    return error.strerror or str(error)
