"""The standard streams, which may be closed or full."""

import os
import sys
from contextlib import suppress


def open_streams() -> None:
    """Open the null device for each standard stream that is closed. Else the next file that is opened would get the
    number of the stream, and what is printed would be written into that file."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:  # there is nobody to talk to, which is no reason to fail
        sys.stderr = os.fdopen(2, "w", closefd=False)


def flush_streams() -> None:
    """Flush the standard streams. Output that a stream does not take is dropped, so that the interpreter does not fail
    over it again as it ends."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)
            with suppress(OSError, ValueError):
                stream.flush()
