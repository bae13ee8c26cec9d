from . import crash


def test_nothing_sealed_is_lost_or_doubled_by_sigkill(tmp_path):
    """Four kills; `python tests/store/crash.py --kills 200` is the long form."""
    assert crash.run(4, seed=3, folder=tmp_path)["killed"] >= 4
