import os
import re
from urllib.request import Request, urlopen

import pytest

from .corpora import Corpus
from .servers import KEYS, served


@pytest.fixture
def corpus():
    return Corpus()


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Skip syncs, since hundreds of small segments are sealed here. test_sealing.py proves that each is synced."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def s3_endpoint():
    with served("moto_server", host="-H", port="-p") as endpoint:
        urlopen(Request(f"{endpoint}/bucket", method="PUT")).close()
        yield endpoint


def named(request):
    """The test's name, in a form that fits a URL."""
    return re.sub(r"\W+", "-", request.node.name)


@pytest.fixture
def bucket(s3_endpoint, monkeypatch, request):
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{named(request)}.zarr"


@pytest.fixture
def memory(request):
    return f"memory://{named(request)}"
