"""Windows of an example: a text that is longer than the model takes as several samples."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from recycle_cli.corpus import Example, Expand
from recycle_cli.corpus.records import BadRecord
from recycle_cli.errors import DataError
from recycle_cli.models import OpenPreprocessor, Spans, TextPreprocessor
from recycle_cli.settings import WindowSettings


def in_windows(preprocessor: OpenPreprocessor, settings: WindowSettings) -> Expand:
    """A function that cuts the text of an example, or the second text of its pair, into windows.

    The windows become its samples, with their first characters as `starts` and the places of their rows as `spans`; its
    only sample is kept as `whole`.
    """

    def expand(example: Example) -> Example:
        inputs = cast(TextPreprocessor, preprocessor())
        try:
            found = inputs.windows(example.sample, settings.stride)
        except DataError as error:
            raise BadRecord(str(error)) from error
        samples, starts, spans = zip(*((one.sample, one.start, one.spans) for one in found), strict=True)
        return replace(example, samples=samples, starts=starts, spans=spans, whole=example.sample)

    return expand


def spans_of(examples: Sequence[Example], preprocessor: OpenPreprocessor) -> list[Sequence[Spans]]:
    """The places of the rows of each example's samples; only what has no windows is tokenised for them."""
    asked = [sample for example in examples if not example.spans for sample in example.samples]
    found = iter(cast(TextPreprocessor, preprocessor()).spans(asked) if asked else ())
    return [example.spans or [next(found) for _ in example.samples] for example in examples]
