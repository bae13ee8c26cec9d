"""The boundary around other people's readers, which may raise anything over a broken file."""

from collections.abc import Iterator
from contextlib import contextmanager

from recycle_cli.corpus.records import shown
from recycle_cli.errors import DataError, RecycleError


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what a library raises within into a DataError of one line, chained.

    Only calls of libraries belong inside, so that a fault of ours is not taken for one of the file. Too little memory
    is no fault of the file either.
    """
    try:
        yield
    except (RecycleError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{name}: cannot be read ({brief(error)})") from error


def brief(error: BaseException) -> str:
    """What an exception says, in one line and at most 300 characters; its kind if it says nothing."""
    cause = error.__cause__ or error
    said = getattr(cause, "strerror", None) or str(cause)
    return shown(" ".join(said.split()))[:300] or type(cause).__name__
