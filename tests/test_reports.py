"""Progress where stderr is no terminal: a line every so often, and none with --quiet."""

import pytest

from recycle_cli import reports
from recycle_cli.reports import bar, be_quiet


@pytest.fixture(autouse=True)
def time(monkeypatch):
    """The clock, which stands still between calls of what it returns; quiet is off afterwards."""
    now = [1000.0]
    monkeypatch.setattr(reports, "monotonic", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    yield passes
    be_quiet(False)


def test_something_long_tells_how_far_it_is_every_so_often(time, capsys):
    with bar("precompute", 4000, every=10) as progress:
        progress.update(0)
        for _ in range(3):
            time(8)
            progress.update(1000, note="62 samples/s")
    assert capsys.readouterr().err.splitlines() == [
        "precompute: 2,000 of 4,000 (50%), 0:00:16 elapsed, 0:00:16 left, 62 samples/s"
    ]


def test_an_unknown_total_has_no_share_and_no_time_left(time, capsys):
    with bar("predict", every=10) as progress:
        time(4000)
        progress.update(1500)
    assert capsys.readouterr().err == "predict: 1,500, 1:06:40 elapsed\n"


def test_what_an_earlier_run_did_is_no_measure_of_the_time_left(time, capsys):
    with bar("finetune", every=10) as progress:
        progress.update(900, total=1000)
        time(20)
        progress.update(50)
    assert capsys.readouterr().err == "finetune: 950 of 1,000 (95%), 0:00:20 elapsed, 0:00:20 left\n"


def test_something_short_says_nothing(time, capsys):
    with bar("predict", 10) as progress:
        time(29)
        progress.update(10)
    assert capsys.readouterr().err == ""


def test_quiet_says_nothing(time, capsys):
    be_quiet(True)
    with bar("predict", 10, every=10) as progress:
        time(29)
        progress.update(10)
    assert capsys.readouterr().err == ""
