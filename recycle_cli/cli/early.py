"""What can be told before PyTorch is loaded, which takes seconds."""

from collections.abc import Sequence


def check_there(sources: Sequence[str]) -> None:
    """Raise DataError for a source of records that is not there."""
    from recycle_cli import corpus

    corpus.check_there(sources)
