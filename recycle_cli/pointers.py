"""Small files that stand in for large ones: what a clone holds until their contents are fetched."""

import os
import re

from recycle_cli.errors import DataError

LARGEST = 1024
"""Bytes; the specification of Git LFS allows a pointer no more, and git-annex writes less."""

_LFS = re.compile(rb"version \S+\r?\n(?:[a-z0-9.-]+ [^\n]*\n)*oid \S+\r?\n(?:[a-z0-9.-]+ [^\n]*\n)*size \d+\s*")
"""Lines of a key and a value, `version` first, with `oid` and `size` among them, as the specification orders them."""

_ANNEX = re.compile(rb"\S*/annex/objects/\S+\s*")

_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.I | re.S
)


def what_pointer(content: bytes) -> str | None:
    """What a file is, and the remedy, if its content is no data but a pointer to them; None for anything else."""
    if len(content) > LARGEST:
        return None
    if _LFS.fullmatch(content):
        return "is a Git LFS pointer in place of the data, which were not fetched; run `git lfs pull` where it lies"
    if _ANNEX.fullmatch(content):
        return "is a git-annex pointer in place of the data, which were not fetched; run `git annex get` on it"
    return None


def what_page(content: bytes) -> str | None:
    """What a file is, and the remedy, if its content begins as an HTML page does; None for anything else."""
    if _PAGE.match(content):
        return "is an HTML page in place of the file, such as a login or an error; download it again"
    return None


def check_fetched(file: str, called: str | None = None) -> None:
    """Raise DataError for a file that is a pointer; one that cannot be read is left to its reader. `called`: how the
    message names it."""
    try:
        # A pipe must not wait for somebody to write to it.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as handle:
            content = handle.read(LARGEST + 1) or b""
    except OSError:
        return
    if (problem := what_pointer(content)) is not None:
        raise DataError(f"{called or file}: {problem}")
