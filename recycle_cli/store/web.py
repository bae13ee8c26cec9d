"""Stores on a web server, which can only be read. The server must answer with parts of files and list folders.

A redirection to another host is refused: whoever runs the server could have us ask any address that we reach.
"""

import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import unquote, urljoin, urlsplit

from recycle_cli.errors import DamageError, StorageError, UsageError
from recycle_cli.settings.variables import URL_QUERY
from recycle_cli.store.layout import DOCUMENT, DOCUMENT_LIMIT, SEGMENTS, is_name
from recycle_cli.store.liveness import Writer
from recycle_cli.store.place import Drafts
from recycle_cli.store.url_place import UrlPlace

try:
    import requests
    from urllib3.exceptions import HTTPError
except ImportError as error:  # an optional library, so the message says how to install it
    raise UsageError("stores on a web server need requests: `pip install recycle-cli[remote]`") from error

PAUSES = (0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds before a request is repeated that broke off, or that the server could not answer now."""

TIMEOUT = (5.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes of an answer."""

REDIRECTIONS = 5

_LINK = re.compile(r"""href=["']([^"'?#]+)["']""", re.IGNORECASE)
_GONE = (404, 410)
_LATER = (408, 425, 429)


class WebPlace(UrlPlace):
    """A store below an http(s) URL. RECYCLE_URL_QUERY is sent as the query of each request, and never shown."""

    def __init__(self, url: str, *, cached: bool = True) -> None:
        super().__init__(url, cached=cached)
        self._query = os.environ.get(URL_QUERY, "").removeprefix("?")
        self._threads = threading.local()

    def is_store(self) -> bool:
        try:
            self.size_of(DOCUMENT)
        except DamageError:
            return False
        return True

    def has_begun(self) -> bool:
        try:
            return bool(self.segment_names())
        except DamageError:
            return False

    def document(self, name: str) -> bytes:
        data = self._ask("GET", name, DOCUMENT_LIMIT + 1).body
        if len(data) > DOCUMENT_LIMIT:
            raise DamageError(f"{self.where(name)}: more than the {DOCUMENT_LIMIT} bytes of metadata that are read")
        return data

    def size_of(self, name: str) -> int:
        """Bytes of a file, as the server tells."""
        length = self._ask("HEAD", name, 0).headers.get("Content-Length", "")
        if not length.isdecimal():
            raise StorageError(f"{self.where(name)}: this server does not tell the size of files; use another")
        return int(length)

    def part(self, name: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of a file."""
        answer = self._ask("GET", name, stop - start, Range=f"bytes={start}-{stop - 1}")
        if answer.status != 206:
            raise StorageError(f"{self.where(name)}: this server does not send parts of files; use another")
        return answer.body

    def segment_names(self) -> list[str]:
        """Names of the sealed segments, which the server lists as folders, from oldest to newest."""
        links = self._links(f"{SEGMENTS}/")
        return sorted(name for name in (link.rstrip("/") for link in links if link.endswith("/")) if is_name(name))

    def is_segment(self, name: str) -> bool:
        """Whether the folder has a document."""
        try:
            self.size_of(f"{SEGMENTS}/{name}/{DOCUMENT}")
        except DamageError:
            return False
        return True

    def listing(self, segment: str) -> Mapping[str, int]:
        """Sizes of all files below a segment that the server lists."""
        return {name: self.size_of(f"{SEGMENTS}/{segment}/{name}") for name in self._files(f"{SEGMENTS}/{segment}/")}

    def foreign(self) -> list[str]:
        """None: nobody writes here through us."""
        return []

    def begin(self) -> NoReturn:
        self._refuse()

    def create(self, name: str, data: bytes) -> NoReturn:
        self._refuse()

    def replace(self, name: str, data: bytes) -> NoReturn:
        self._refuse()

    def drafts(self) -> Drafts:
        self._refuse()

    def set_aside(self, names: list[str]) -> NoReturn:
        self._refuse()

    def bytes_used(self) -> int:
        return 0

    def unfinished(self) -> list[Writer]:
        """None: writers are not seen from here."""
        return []

    def aside(self) -> list[str]:
        return []

    def _refuse(self) -> NoReturn:
        raise StorageError(f"{self.url}: a web server can only be read; write to a folder or a bucket")

    def _files(self, folder: str, inside: str = "") -> Iterator[str]:
        for link in self._links(f"{folder}{inside}"):
            if link.endswith("/"):
                yield from self._files(folder, f"{inside}{link}")
            else:
                yield f"{inside}{link}"

    def _links(self, folder: str) -> list[str]:
        """The names that the server's page of a folder links to, folders with `/` at their end."""
        page = self.document(folder).decode("utf-8", "replace")
        base = urlsplit(self.where(folder))
        paths = [unquote(urlsplit(urljoin(base.geturl(), link)).path) for link in _LINK.findall(page)]
        here = unquote(base.path)
        names = [path.removeprefix(here) for path in paths if path.startswith(here)]
        return sorted({name for name in names if name and "/" not in name.rstrip("/")})

    def _ask(self, method: str, name: str, limit: int, **headers: str) -> "_Answer":
        """An answer that is neither an error nor a redirection, with at most `limit` bytes of its body.

        Raises DamageError if there is no such file.
        """
        where, pauses = self.where(name), list(PAUSES)
        while True:
            try:
                with self._follow(method, where, headers) as answer:
                    status, reason = answer.status_code, f"{answer.status_code} {answer.reason}"
                    if status < 300:
                        return _Answer(status, answer.headers, b"".join(_up_to(answer.raw, limit)))
            except (requests.RequestException, HTTPError, OSError) as error:
                status, reason = 0, _reason(error)
            if status in _GONE:
                raise DamageError(f"{where}: missing; run `recycle store verify --repair`")
            if not pauses or (300 <= status < 500 and status not in _LATER):
                raise StorageError(f"{where}: cannot be reached ({reason}); check the address and who may read it")
            time.sleep(pauses.pop(0))

    def _follow(self, method: str, where: str, headers: Mapping[str, str]) -> Any:
        """Send a request, and after a redirection within the host again."""
        address = f"{where}?{self._query}" if self._query else where
        for _ in range(REDIRECTIONS + 1):
            answer = self._session.request(
                method,
                address,
                headers={"Accept-Encoding": "identity", **headers},
                allow_redirects=False,
                stream=True,
                timeout=TIMEOUT,
            )
            if not answer.is_redirect:
                return answer
            answer.close()
            target = urljoin(address, answer.headers["Location"])
            if not _same_host(address, target):
                parts = urlsplit(target)
                host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
                raise StorageError(
                    f"{where}: redirects to another host ({host}), which is refused; name that host if you trust it"
                )
            address = target
        raise StorageError(f"{where}: more than {REDIRECTIONS} redirections; check the address")

    @property
    def _session(self) -> Any:
        """A session, with connections of its own, for each thread."""
        if not hasattr(self._threads, "session"):
            self._threads.session = requests.Session()
        return self._threads.session


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def _up_to(body: Any, limit: int) -> Iterator[bytes]:
    left = limit
    while left and (piece := body.read(min(left, 1 << 20))):
        yield piece
        left -= len(piece)


def _same_host(address: str, target: str) -> bool:
    """Whether the target is at the same host and port, or at the same host by HTTPS instead of HTTP."""
    try:
        old, new = urlsplit(address), urlsplit(target)
        places = [(parts.scheme, parts.hostname, parts.port) for parts in (old, new)]
    except ValueError:
        return False
    upgraded = ("https", old.hostname, None)
    return places[0] == places[1] or (places[0] == ("http", old.hostname, None) and places[1] == upgraded)


def _reason(error: BaseException) -> str:
    """What the operating system or the innermost library said. The outer messages repeat the address with its query."""
    inner = error
    while (below := inner.__cause__ or inner.__context__) is not None:
        inner = below
    return str(getattr(inner, "strerror", None) or type(inner).__name__)
