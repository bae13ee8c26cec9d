"""OpenMP's threads spin briefly, unless the user has said how they wait."""

import os

import pytest

from recycle_cli.runtime.threads import spin_less

NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what the test sets goes again
        monkeypatch.delenv(name)


def said():
    return {name: os.environ[name] for name in NAMES if name in os.environ}


def test_threads_spin_briefly():
    spin_less()
    assert said() == {"GOMP_SPINCOUNT": "1000"}


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "5"), ("OMP_WAIT_POLICY", "active")])
def test_what_the_user_has_set_stays(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    spin_less()
    assert said() == {name: value}
