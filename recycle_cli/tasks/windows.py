"""Windows of an example: a text that is longer than the model takes as several samples."""

from dataclasses import replace
from typing import cast

from recycle_cli.corpus import Example, Expand
from recycle_cli.corpus.records import BadRecord
from recycle_cli.errors import DataError
from recycle_cli.models import OpenPreprocessor, TextPreprocessor
from recycle_cli.settings import WindowSettings


def in_windows(preprocessor: OpenPreprocessor, settings: WindowSettings) -> Expand:
    """A function that cuts the text of an example, or the second text of its pair, into windows.

    The windows become its samples, with their first characters as `starts`; its only sample is kept as `whole`.
    """

    def expand(example: Example) -> Example:
        inputs = cast(TextPreprocessor, preprocessor())
        try:
            found = inputs.windows(example.sample, settings.stride)
        except DataError as error:
            raise BadRecord(str(error)) from error
        samples, starts = zip(*((window.sample, window.start) for window in found), strict=True)
        return replace(example, samples=samples, starts=starts, whole=example.sample)

    return expand
