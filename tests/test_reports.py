"""Progress without a terminal: a line from time to time, with the time that is left."""

import pytest

from recycle_cli import reports


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass as the test says."""
    now = [100.0]
    monkeypatch.setattr("recycle_cli.reports.time.monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_log_gets_a_line_every_half_minute(clock, capsys):
    with reports.bar("precompute", 1_000) as progress:
        assert not progress.shown
        progress.update(100)
        assert lines(capsys) == []
        clock(31)
        progress.update(100, note="60 rows/s")
        assert lines(capsys) == ["precompute: 200 of 1,000, 0:00:31 gone, 0:02:04 left, 60 rows/s"]
        clock(20)
        progress.update(300)
        clock(11)
        progress.update(100)
        assert lines(capsys) == ["precompute: 600 of 1,000, 0:01:02 gone, 0:00:31 left, 60 rows/s"]


def test_what_is_not_known_is_left_out(clock, capsys):
    with reports.bar("predict") as progress:
        progress.update(50)
        clock(40)
        progress.update(note="5% hits")
        clock(40)
        progress.update(total=500)
        assert lines(capsys) == [
            "predict: 50, 0:00:40 gone, 5% hits",
            "predict: 50 of 500, 0:01:20 gone, 5% hits",
        ]


def test_steps_of_an_earlier_run_say_nothing_of_the_time_left(clock, capsys):
    with reports.bar("finetune") as progress:
        progress.update(800, total=1_000)
        clock(30)
        progress.update(100)
        assert lines(capsys) == ["finetune: 900 of 1,000, 0:00:30 gone, 0:00:30 left"]
