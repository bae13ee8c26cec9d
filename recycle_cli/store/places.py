"""Turn the path or URL that a user gives into the place where the store lies."""

import importlib
import re

from recycle_cli.store.place import LocalPlace, Place

_URL = re.compile(r"[a-z][a-z0-9]*://")


def open_place(path: str) -> Place:
    """Open an object store for a URL of s3://, gs://, az://, http(s):// or memory://, else a local folder.

    Raises UsageError for another scheme, or if the library for object stores is not installed.
    """
    if not _URL.match(path):
        return LocalPlace(path)
    # Imported here, so that a local store does not wait for a library it does not use.
    place: Place = importlib.import_module("recycle_cli.store.remote").RemotePlace(path)
    return place
