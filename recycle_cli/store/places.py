"""From the path or URL a user gives to the place where the store lies."""

import importlib
import re

from recycle_cli.store.place import LocalPlace, Place

_URL = re.compile(r"[a-z][a-z0-9]*://")


def open_place(path: str) -> Place:
    """A local folder, or for s3://, gs://, az://, http(s):// and memory:// an object store.

    Raises UsageError for another scheme, or where the library for object stores is not installed.
    """
    if not _URL.match(path):
        return LocalPlace(path)
    # Not at the top: a local store must not wait for a library it does not use.
    place: Place = importlib.import_module("recycle_cli.store.remote").RemotePlace(path)
    return place
