import os

import pytest

from .corpora import Corpus


@pytest.fixture
def corpus():
    return Corpus()


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Hundreds of small segments are sealed here; that each is synced has a test of its own."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
