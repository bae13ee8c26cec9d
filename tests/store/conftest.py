import os
import re
import subprocess
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


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 6 MiB, which only root may mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
