"""The boundary around other people's readers, which may raise anything over a broken file."""

from collections.abc import Iterator
from contextlib import contextmanager

from recycle_cli.corpus.records import shown
from recycle_cli.errors import DataError, RecycleError


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise any exception of a library as a DataError of one line, chained.

    Only calls of libraries belong inside, so that a fault of ours is not taken for one of the file. A MemoryError is no
    fault of the file either, and stays as it is.
    """
    try:
        yield
    except (RecycleError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{name}: cannot be read ({brief(error)})") from error


def brief(error: BaseException) -> str:
    """The message of an exception, in one line of at most 300 characters; the name of its class if it has none."""
    cause = error.__cause__ or error
    said = getattr(cause, "strerror", None) or str(cause)
    return shown(" ".join(said.split()))[:300] or type(cause).__name__
