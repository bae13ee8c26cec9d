import pytest

from .corpora import Corpus


@pytest.fixture
def corpus():
    return Corpus()
