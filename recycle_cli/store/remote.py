"""Stores in a bucket or in memory, through obstore. Credentials come from the environment only.

A segment's own zarr.json is uploaded last and makes the segment visible. An interrupted upload leaves files without
one, which are not a segment.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from recycle_cli.errors import DamageError, StorageError, StoreError, UsageError
from recycle_cli.store.layout import (
    DAMAGED,
    DOCUMENT,
    DOCUMENT_LIMIT,
    SCRATCH,
    SEGMENTS,
    dumps,
    group_document,
    is_name,
)
from recycle_cli.store.liveness import FOREIGN_IDLE_SECONDS, Writer, unique_id
from recycle_cli.store.place import Drafts
from recycle_cli.store.segment import REQUESTS
from recycle_cli.store.url_place import UrlPlace

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, NotFoundError
    from obstore.store import MemoryStore, from_url
except ImportError as error:  # an optional library, so the message says how to install it
    raise UsageError("object stores need obstore: `pip install recycle-cli[remote]`") from error

RETRY: dict[str, Any] = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
"""How obstore retries a failed request; each wait is longer than the last. `retry_timeout` is how long a server that
accepts requests but answers none can hold us up."""

TRIES, PAUSE, LONG_SECONDS = 4, 0.2, 5.0
"""How often a request that ended without an answer is repeated by us, the seconds before the first repetition (each
further pause is twice as long), and after how many seconds no more."""

_ENDPOINTS = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "GOOGLE_BASE_URL",
    "AZURE_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "AZURITE_BLOB_STORAGE_URL",
)

_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
"""The error codes of S3 (and Google's storage) and of Azure for a bucket that does not exist."""

_ASKED_FOR_CREDENTIALS = ("/latest/api/token", "/latest/meta-data", "/computeMetadata/", "/metadata/identity")
"""Addresses that a client asks for credentials, on a cloud's machine, if the environment has none."""

_MEMORY: dict[str, MemoryStore] = {}
_QUERY = re.compile(r"[?][^\s)\"']*")
"""A query in an address, which may hold a token."""

LONG_UPLOAD_SECONDS = 3600.0
"""After so long a writer looks whether all that it has uploaded of a segment is still there, before it seals it."""

T = TypeVar("T")


class RemotePlace(UrlPlace):
    """An object store below a URL, with the same names as a local store. Nothing is mapped or renamed."""

    def __init__(self, url: str, *, cached: bool = True) -> None:
        super().__init__(url, cached=cached)
        self._sealed: set[str] = set()
        with _remote_errors(self.url):
            if url.startswith("memory://"):
                self._store: Any = _MEMORY.setdefault(self.url, MemoryStore())
            else:
                options: Any = {"client_options": {"allow_http": _allows_http(url)}, "retry_config": RETRY}
                self._store = from_url(self.url, **options)

    def is_store(self) -> bool:
        try:
            # The answer to `head` does not tell that the bucket is missing.
            _tried(self.url, lambda: obstore.get(self._store, DOCUMENT))
        except DamageError:
            return False
        return True

    def has_begun(self) -> bool:
        return bool(self.segment_names())

    def document(self, name: str) -> bytes:
        def fetched() -> bytes:
            found = obstore.get(self._store, name)
            size = found.meta["size"]
            if size > DOCUMENT_LIMIT:
                raise DamageError(
                    f"{self.where(name)}: {size} bytes of metadata, more than the {DOCUMENT_LIMIT} that are read"
                )
            return bytes(found.bytes())

        return _tried(self.where(name), fetched)

    def size_of(self, name: str) -> int:
        """Bytes of an object."""
        return _tried(self.where(name), lambda: int(obstore.head(self._store, name)["size"]))

    def part(self, name: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of an object."""
        return _tried(self.where(name), lambda: bytes(obstore.get_range(self._store, name, start=start, end=stop)))

    def whole(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        """All bytes of an object, in one request. Raises DamageError if it has another size."""
        if self._cache is not None:
            return super().whole(name, size)
        data = self._content(name)
        if len(data) != size:
            raise DamageError(f"{self.where(name)}: {len(data)} bytes, {size} were sealed; run `recycle store verify`")
        return np.frombuffer(data, np.uint8)

    def segment_names(self) -> list[str]:
        """Names of the sealed segments, the folders that hold a document, from oldest to newest.

        At first all objects are listed, later the folders alone, and only in new ones a document is looked for. So a
        segment that `verify --repair` sets aside meanwhile, in another process, stays for this one.
        """
        if not self._sealed:
            paths = [meta["path"].split("/") for meta in self._below(SEGMENTS) if meta["path"].endswith(f"/{DOCUMENT}")]
            self._sealed = {path[1] for path in paths if len(path) == 3 and is_name(path[1])}
            return sorted(self._sealed)
        found: Any = _tried(self.where(SEGMENTS), lambda: obstore.list_with_delimiter(self._store, f"{SEGMENTS}/"))
        names = {prefix.rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"]}
        fresh = sorted(name for name in names - self._sealed if is_name(name))
        with ThreadPoolExecutor(REQUESTS, thread_name_prefix="recycle-look") as pool:
            are_sealed = list(pool.map(self._has_document, fresh))
        self._sealed = (self._sealed & names) | set(compress(fresh, are_sealed))
        return sorted(self._sealed)

    def _has_document(self, segment: str) -> bool:
        try:
            self.size_of(f"{SEGMENTS}/{segment}/{DOCUMENT}")
        except DamageError:
            return False
        return True

    def is_segment(self, name: str) -> bool:
        """True: only a prefix with a document counts as a segment."""
        return True

    def foreign(self) -> list[str]:
        """Names of objects among the segments that belong to none."""
        paths = [meta["path"] for meta in self._below(SEGMENTS)]
        return sorted(path for path in paths if path != f"{SEGMENTS}/{DOCUMENT}" and not _in_segment(path))

    def listing(self, segment: str) -> Mapping[str, int]:
        prefix = f"{SEGMENTS}/{segment}/"
        return {meta["path"].removeprefix(prefix): meta["size"] for meta in self._listed(prefix)}

    def begin(self) -> None:
        """Do nothing: a bucket has no folders to make."""

    def create(self, name: str, data: bytes) -> None:
        """Create an object unless it exists. If several processes try at once, one of them wins.

        A connection that breaks off leaves open whether the object was made. Another attempt, or a look, tells.
        """
        where = self.where(name)
        try:
            _tried(where, lambda: obstore.put(self._store, name, data, mode="create"))
        except _Exists:
            return
        except StorageError:
            with suppress(StoreError):
                if self.document(name) == data:
                    return
            raise

    def replace(self, name: str, data: bytes) -> None:
        """Replace a damaged document; a copy of the old one goes to `damaged/`."""
        old = self._content(name)
        self._put(_aside(name), old)
        self._put(name, data)

    def drafts(self) -> Drafts:
        return RemoteDrafts(self._put, self.listing)

    def bytes_used(self) -> int:
        return sum(meta["size"] for meta in self._listed())

    def set_aside(self, names: list[str]) -> None:
        """Move the documents of segments to `damaged/`, which hides each segment as a whole."""
        self._sealed.clear()
        for name in names:
            document = name if name.endswith(DOCUMENT) else f"{name}/{DOCUMENT}"
            with suppress(DamageError):
                self._put(_aside(name), self._content(document))
                self._delete(document)
            if name.endswith(f"/{DOCUMENT}"):
                self.create(name, dumps(group_document()))

    def unfinished(self) -> list[Writer]:
        """Uploads without a document: they are running, or were interrupted if nothing has changed for a day."""
        objects: dict[str, list[Any]] = {}
        for meta in self._below(SEGMENTS):
            _, name, *rest = meta["path"].split("/")
            if rest and is_name(name):
                objects.setdefault(name, []).append(meta)
        now = datetime.now(UTC)
        return [
            Writer(
                name,
                alive=(now - max(meta["last_modified"] for meta in metas)).total_seconds() < FOREIGN_IDLE_SECONDS,
                pid=None,
                bytes=sum(meta["size"] for meta in metas),
            )
            for name, metas in sorted(objects.items())
            if not any(meta["path"] == f"{SEGMENTS}/{name}/{DOCUMENT}" for meta in metas)
        ]

    def remove_unfinished(self, name: str, *, dry_run: bool) -> int:
        """Remove the objects of an upload that was given up, and return their bytes.

        It was if it has no document, and by the server's clock nothing of it has changed for a day; else 0.
        """
        objects = self._listed(f"{SEGMENTS}/{name}/")
        if not objects or any(meta["path"] == f"{SEGMENTS}/{name}/{DOCUMENT}" for meta in objects):
            return 0
        newest = max(meta["last_modified"] for meta in objects)
        if (self._clock() - newest).total_seconds() < FOREIGN_IDLE_SECONDS:
            return 0
        return self._removed(objects, dry_run=dry_run)

    def remove_aside(self, name: str, *, dry_run: bool) -> int:
        """Remove what `verify --repair` set aside under this name, and return its bytes."""
        objects = [meta for meta in self._below(DAMAGED) if meta["path"] == f"{DAMAGED}/{name}"]
        return self._removed(objects, dry_run=dry_run)

    def _removed(self, objects: list[Any], *, dry_run: bool) -> int:
        if not dry_run:
            for meta in objects:
                self._delete(meta["path"])
        return sum(int(meta["size"]) for meta in objects)

    def _clock(self) -> datetime:
        """The time now by the server's clock, which sets the times of objects."""
        probe = f"{SCRATCH}/{unique_id()}"
        self._put(probe, b"")
        try:
            found: datetime = _tried(self.where(probe), lambda: obstore.head(self._store, probe)["last_modified"])
        finally:
            self._delete(probe)
        return found

    def aside(self) -> list[str]:
        """Names of the parts that `verify --repair` set aside."""
        names = [meta["path"].removeprefix(f"{DAMAGED}/") for meta in self._below(DAMAGED)]
        return sorted(name for name in names if name != DOCUMENT)

    def _below(self, folder: str) -> list[Any]:
        """Path, size and time of all objects below a folder."""
        return self._listed(f"{folder}/")

    def _listed(self, prefix: str | None = None) -> list[Any]:
        def listed() -> list[Any]:
            return [meta for batch in obstore.list(self._store, prefix) for meta in batch]

        return _tried(self.where(prefix or ""), listed)

    def _content(self, name: str) -> bytes:
        """All of an object, whatever its size."""
        return _tried(self.where(name), lambda: bytes(obstore.get(self._store, name).bytes()))

    def _delete(self, name: str) -> None:
        _tried(self.where(name), lambda: obstore.delete(self._store, name))

    def _put(self, name: str, data: bytes | Path) -> None:
        _tried(self.where(name), lambda: obstore.put(self._store, name, data))


class RemoteDrafts:
    """A local temporary folder. Its segments are uploaded with their document last."""

    def __init__(self, put: Callable[[str, Path], None], listing: Callable[[str], Mapping[str, int]]) -> None:
        self._put, self._listing = put, listing
        self.folder = Path(tempfile.mkdtemp(prefix="recycle-"))

    def ready(self) -> Path:
        """The folder, to begin a draft in; made again if the system has cleaned it away."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        return self.folder

    def publish(self, draft: Path) -> None:
        """Upload a draft and remove the local copy. Raises StorageError if a gc took the upload for one given up."""
        began = time.monotonic()
        files = {
            path.relative_to(draft).as_posix(): path
            for path in draft.rglob("*")
            if path.is_file() and path != draft / DOCUMENT
        }
        for name, path in files.items():
            self._put(f"{SEGMENTS}/{draft.name}/{name}", path)
        if time.monotonic() - began > LONG_UPLOAD_SECONDS:
            self._check_there(draft.name, {name: path.stat().st_size for name, path in files.items()})
        self._put(f"{SEGMENTS}/{draft.name}/{DOCUMENT}", draft / DOCUMENT)
        shutil.rmtree(draft)

    def _check_there(self, segment: str, sizes: Mapping[str, int]) -> None:
        if dict(self._listing(segment)) != sizes:
            raise StorageError(
                f"{SEGMENTS}/{segment}: parts of it were removed while it was uploaded, which took long; run the same "
                "command again"
            )

    def release(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class _Exists(Exception):  # noqa: N818 - an answer, which `create` takes
    """The object is there already."""


def _tried(where: str, call: Callable[[], T]) -> T:
    """Make a call, again if it ended without an answer: obstore repeats what a server answers with an error, but not
    each request whose connection broke off. What took long has been repeated by obstore."""
    began, pauses = time.monotonic(), [PAUSE * 2**number for number in range(min(TRIES, RETRY["max_retries"]))]
    with _remote_errors(where):
        while True:
            try:
                return call()
            except AlreadyExistsError:
                raise _Exists from None
            except GenericError as error:
                if not pauses or time.monotonic() - began > LONG_SECONDS or _is_answer(error):
                    raise
                time.sleep(pauses.pop(0))


def _is_answer(error: Exception) -> bool:
    """Whether nothing can come of another attempt: there are no credentials, or no such bucket."""
    return any(name in str(error) for name in (*_ASKED_FOR_CREDENTIALS, *_NO_BUCKET))


class _remote_errors:  # noqa: N801 - used like a function
    """Turn obstore's errors into one line: a missing object is a DamageError, everything else a StorageError."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (BaseError, FileNotFoundError)) and any(name in str(error) for name in _NO_BUCKET):
            raise StorageError(
                f"{self._where}: there is no such bucket; make it first, or name one that is there"
            ) from error
        if isinstance(error, (NotFoundError, FileNotFoundError)):
            raise DamageError(f"{self._where}: missing; run `recycle store verify --repair`") from None
        if isinstance(error, BaseError) and any(name in str(error) for name in _ASKED_FOR_CREDENTIALS):
            raise StorageError(
                f"{self._where}: there are no credentials in the environment; set them (for S3, AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY)"
            ) from error
        if isinstance(error, BaseError):
            reason = _QUERY.sub("", " ".join(str(error).partition("Debug source")[0].split()))[:200]
            raise StorageError(
                f"{self._where}: cannot be reached ({reason}); check the address and the credentials in the environment"
            ) from error


def _aside(name: str) -> str:
    """Where a copy of a damaged part is kept: under a name of its own, so that it replaces no earlier one."""
    return f"{DAMAGED}/{name.replace('/', '-')}-{unique_id()}.json"


def _in_segment(path: str) -> bool:
    """Whether an object below `segments/` lies in a folder with a segment's name."""
    _, name, *rest = path.split("/")
    return bool(rest) and is_name(name)


def _allows_http(url: str) -> bool:
    """Allow plain HTTP only if the URL, or an endpoint in the environment, starts with http://."""
    endpoints = [url, *(os.environ.get(name, "") for name in _ENDPOINTS)]
    return any(endpoint.startswith("http://") for endpoint in endpoints)
