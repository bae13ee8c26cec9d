"""Turn the path or URL that a user gives into the place where the store lies."""

import importlib
import re
from urllib.parse import urlsplit

from recycle_cli.disk import expanded
from recycle_cli.errors import UsageError
from recycle_cli.store.place import LocalPlace, Place

SCHEMES = ("s3", "gs", "az", "http", "https", "memory")

_URL = re.compile(r"[a-z][a-z0-9]*://")


def open_place(path: str) -> Place:
    """Open an object store for a URL of s3://, gs://, az:// or memory://, a web server for http(s)://, or a folder.

    Raises UsageError for another URL, also for one with credentials or a token in it, or if the library for object
    stores is not installed.
    """
    if not _URL.match(path):
        return LocalPlace(expanded(path))
    check_url(path)
    # Imported here, so that a local store does not wait for libraries it does not use.
    if path.startswith("http"):
        web: Place = importlib.import_module("recycle_cli.store.web").WebPlace(path)
        return web
    place: Place = importlib.import_module("recycle_cli.store.remote").RemotePlace(path)
    return place


def check_url(url: str) -> None:
    """Raise UsageError for what is no URL of a store. Messages and reports repeat a URL, so it must hold no secrets."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        bare = url.partition("?")[0]
        raise UsageError(f"{bare}: not a URL ({error}); expected such as s3://bucket/acts.zarr") from None
    if "@" in parts.netloc:
        raise UsageError(f"{parts.scheme}://…@{host}: a URL with credentials; they come from the environment alone")
    bare = f"{parts.scheme}://{parts.netloc}{parts.path}"
    if parts.scheme not in SCHEMES:
        raise UsageError(f"{bare}: one of {', '.join(f'{scheme}://' for scheme in SCHEMES)} was expected")
    if not parts.netloc:
        raise UsageError(f"{bare}: names no bucket; expected such as {parts.scheme}://bucket/acts.zarr")
    if "?" in url or "#" in url:
        remedy = "put it into the variable RECYCLE_URL_QUERY" if parts.scheme.startswith("http") else "leave it out"
        raise UsageError(
            f"{bare}: what follows the path (after ? or #) may be a token, and a store's URL is repeated in messages "
            f"and reports; {remedy}"
        )
