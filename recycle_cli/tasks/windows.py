"""Windows of an example: a text that is longer than the model takes as several samples."""

from dataclasses import replace
from typing import cast

from recycle_cli.corpus import Example, Expand
from recycle_cli.corpus.records import BadRecord
from recycle_cli.errors import DataError
from recycle_cli.models import OpenPreprocessor, TextPreprocessor
from recycle_cli.settings import WindowSettings


def in_windows(preprocessor: OpenPreprocessor, settings: WindowSettings) -> Expand:
    """Give an example the windows of its text, or of the second text of its pair, in place of its only sample,
    which is kept as `whole`, and their first characters as `starts`."""

    def expand(example: Example) -> Example:
        inputs = cast(TextPreprocessor, preprocessor())
        try:
            found = inputs.windows(example.sample, settings.stride)
        except DataError as error:
            raise BadRecord(str(error)) from error
        samples, starts = zip(*((window.sample, window.start) for window in found), strict=True)
        return replace(example, samples=samples, starts=starts, whole=example.sample)

    return expand
