"""Stores in a bucket, on a web server or in memory, through obstore. Credentials come from the environment only.

A segment's own zarr.json is uploaded last and makes the segment visible. An interrupted upload leaves files without
one, which are not a segment.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt

from recycle_cli.errors import DamageError, StorageError, UsageError
from recycle_cli.store.cache import cache_from_environment
from recycle_cli.store.chunked import Bytes
from recycle_cli.store.layout import (
    DAMAGED,
    DOCUMENT,
    DOCUMENT_LIMIT,
    SEGMENTS,
    dumps,
    group_document,
    is_name,
)
from recycle_cli.store.liveness import FOREIGN_IDLE_SECONDS, Writer
from recycle_cli.store.place import Drafts

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
    from obstore.store import MemoryStore, from_url
except ImportError as error:  # an optional library, so the message says how to install it
    raise UsageError("object stores need obstore: `pip install recycle-cli[remote]`") from error

SCHEMES = ("s3", "gs", "az", "http", "https", "memory")

RETRY: dict[str, Any] = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
"""How obstore retries a failed request; each wait is longer than the last. `retry_timeout` is how long a server that
accepts requests but answers none can hold us up."""

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
_LINKED = re.compile(rb'href="([^"?#]+)/"')


class RemotePlace:
    """An object store below a URL, with the same names as a local store. Nothing is mapped or renamed."""

    is_local = False

    def __init__(self, url: str, *, cached: bool = True) -> None:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise UsageError(f"{url}: not a URL ({error}); expected such as s3://bucket/acts.zarr") from None
        if parts.scheme not in SCHEMES:
            raise UsageError(f"{url}: one of {', '.join(f'{scheme}://' for scheme in SCHEMES)} was expected")
        if "@" in parts.netloc:  # messages and reports would repeat the credentials
            raise UsageError(
                f"{parts.scheme}://…@{parts.hostname}: a URL with credentials; they come from the environment alone"
            )
        if not parts.netloc:
            raise UsageError(f"{url}: names no bucket; expected such as {parts.scheme}://bucket/acts.zarr")
        self.url = url.rstrip("/")
        self._plain = parts.scheme.startswith("http")
        self._cache = cache_from_environment() if cached else None
        with _remote_errors(self.url):
            if parts.scheme == "memory":
                self._store: Any = _MEMORY.setdefault(self.url, MemoryStore())
            else:
                options: Any = {"client_options": {"allow_http": _allows_http(url)}, "retry_config": RETRY}
                self._store = from_url(self.url, **options)

    def where(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def uncached(self) -> "RemotePlace":
        """This place, read from the bucket alone."""
        return self if self._cache is None else RemotePlace(self.url, cached=False)

    def is_store(self) -> bool:
        try:
            with _remote_errors(self.url):
                obstore.get(self._store, DOCUMENT)  # the answer to `head` does not tell that the bucket is missing
        except DamageError:
            return False
        return True

    def has_begun(self) -> bool:
        return bool(self.segment_names())

    def document(self, name: str) -> bytes:
        with _remote_errors(self.where(name)):
            found = obstore.get(self._store, name)
            if found.meta["size"] > DOCUMENT_LIMIT:
                raise DamageError(
                    f"{self.where(name)}: {found.meta['size']} bytes of metadata, more than the {DOCUMENT_LIMIT} "
                    f"that are read"
                )
            return bytes(found.bytes())

    def whole(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self.ranged(name, size)[0:size], np.uint8)

    def ranged(self, name: str, size: int) -> Bytes:
        """Bytes that are fetched slice by slice. Raises DamageError if the object has another size."""
        with _remote_errors(self.where(name)):
            found = obstore.head(self._store, name)["size"]
        if found != size:
            raise DamageError(f"{self.where(name)}: {found} bytes, {size} were sealed; run `recycle store verify`")
        remote = RemoteBytes(self._store, self.where(name), name, size)
        return remote if self._cache is None else self._cache.over(remote, self.where(name))

    def segment_names(self) -> list[str]:
        """Names of the sealed segments, the folders that hold a document, from oldest to newest."""
        if self._plain:
            with _remote_errors(self.where(SEGMENTS)):
                page = bytes(obstore.get(self._store, f"{SEGMENTS}/").bytes())
            names = {unquote(link.decode()).strip("/").rsplit("/")[-1] for link in _LINKED.findall(page)}
            return sorted(filter(is_name, names))
        documents = [meta["path"].split("/") for meta in self._below(SEGMENTS) if meta["path"].endswith(f"/{DOCUMENT}")]
        return sorted(path[1] for path in documents if len(path) == 3 and is_name(path[1]))

    def is_segment(self, name: str) -> bool:
        """True: only a prefix with a document counts as a segment."""
        return True

    def foreign(self) -> list[str]:
        """Names of objects among the segments that belong to none."""
        paths = [meta["path"] for meta in self._below(SEGMENTS)]
        return sorted(path for path in paths if path != f"{SEGMENTS}/{DOCUMENT}" and not _in_segment(path))

    def listing(self, segment: str) -> Mapping[str, int]:
        prefix = f"{SEGMENTS}/{segment}/"
        with _remote_errors(self.where(prefix)):
            return {
                meta["path"].removeprefix(prefix): meta["size"]
                for batch in obstore.list(self._store, prefix)
                for meta in batch
            }

    def begin(self) -> None:
        """Do nothing: a bucket has no folders to make."""

    def create(self, name: str, data: bytes) -> None:
        """Create an object unless it exists. If several processes try at once, one of them wins."""
        self._writable()
        with _remote_errors(self.where(name)):
            try:
                obstore.put(self._store, name, data, mode="create")
            except AlreadyExistsError:
                return

    def replace(self, name: str, data: bytes) -> None:
        """Replace a damaged document; a copy of the old one goes to `damaged/`."""
        self._writable()
        with _remote_errors(self.where(name)):
            old = bytes(obstore.get(self._store, name).bytes())
            obstore.put(self._store, f"{DAMAGED}/{name.replace('/', '-')}.json", old)
            obstore.put(self._store, name, data)

    def drafts(self) -> Drafts:
        self._writable()
        return RemoteDrafts(self._store, self.url)

    def bytes_used(self) -> int:
        with _remote_errors(self.url):
            return sum(meta["size"] for batch in obstore.list(self._store) for meta in batch)

    def set_aside(self, names: list[str]) -> None:
        """Move the documents of segments to `damaged/`, which hides each segment as a whole."""
        self._writable()
        for name in names:
            document = name if name.endswith(DOCUMENT) else f"{name}/{DOCUMENT}"
            with _remote_errors(self.url), suppress(NotFoundError, FileNotFoundError):
                data = bytes(obstore.get(self._store, document).bytes())
                obstore.put(self._store, f"{DAMAGED}/{name.replace('/', '-')}.json", data)
                obstore.delete(self._store, document)
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

    def aside(self) -> list[str]:
        """Names of the parts that `verify --repair` set aside."""
        names = [meta["path"].removeprefix(f"{DAMAGED}/") for meta in self._below(DAMAGED)]
        return sorted(name for name in names if name != DOCUMENT)

    def _below(self, folder: str) -> list[Any]:
        """Path, size and time of all objects below a folder; none on a web server, which does not list them."""
        if self._plain:
            return []
        with _remote_errors(self.where(folder)):
            return [meta for batch in obstore.list(self._store, f"{folder}/") for meta in batch]

    def _writable(self) -> None:
        if self._plain:
            raise StorageError(f"{self.url}: a web server can only be read; write to a folder or a bucket")


class RemoteBytes:
    """A remote object of known size, fetched slice by slice."""

    def __init__(self, store: Any, where: str, name: str, size: int) -> None:
        self._store, self._where, self._name, self._size = store, where, name, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, span: slice) -> bytes:
        if span.start >= span.stop:
            return b""
        with _remote_errors(self._where):
            data = bytes(obstore.get_range(self._store, self._name, start=span.start, end=span.stop))
        if len(data) != span.stop - span.start:
            raise DamageError(f"{self._where}: shorter than it was; run `recycle store verify`")
        return data


class RemoteDrafts:
    """A local temporary folder. Its segments are uploaded with their document last."""

    def __init__(self, store: Any, url: str) -> None:
        self._store, self._url = store, url
        self.folder = Path(tempfile.mkdtemp(prefix="recycle-"))

    def publish(self, draft: Path) -> None:
        """Upload a draft and remove the local copy."""
        files = [path for path in draft.rglob("*") if path.is_file() and path != draft / DOCUMENT]
        with _remote_errors(self._url):
            for path in (*files, draft / DOCUMENT):
                name = f"{SEGMENTS}/{draft.name}/{path.relative_to(draft).as_posix()}"
                obstore.put(self._store, name, path)
        shutil.rmtree(draft)

    def release(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


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
            reason = " ".join(str(error).partition("Debug source")[0].split())[:200]
            raise StorageError(
                f"{self._where}: cannot be reached ({reason}); check the address and the credentials in the environment"
            ) from error


def _in_segment(path: str) -> bool:
    """Whether an object below `segments/` lies in a folder with a segment's name."""
    _, name, *rest = path.split("/")
    return bool(rest) and is_name(name)


def _allows_http(url: str) -> bool:
    """Allow plain HTTP only if the URL, or an endpoint in the environment, starts with http://."""
    endpoints = [url, *(os.environ.get(name, "") for name in _ENDPOINTS)]
    return any(endpoint.startswith("http://") for endpoint in endpoints)
