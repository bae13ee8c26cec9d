"""The origins of a pass: how its samples are made of records, which a store keeps with them."""

from recycle_cli.models import names_of_views
from recycle_cli.settings import SampleSettings, ViewSettings, words_of
from recycle_cli.store import RECORD, VIEW, Origins

NO_VIEWS = ViewSettings()


def origins_of(samples: SampleSettings, views: ViewSettings = NO_VIEWS) -> Origins:
    """The origins of the samples that records give, each with its views."""
    return frozenset([" ".join(words_of(samples)) or RECORD, *(f"{VIEW}{name}" for name in names_of_views(views))])
