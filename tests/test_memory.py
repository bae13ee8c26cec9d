"""What the real command takes in memory at its peak, as the kernel counts it."""

import os
import subprocess
import sys

import pytest

from tests.records import records, write_csv


def peak(*arguments) -> int:
    """Bytes that the command held at most, mapped files included."""
    command = [sys.executable, "-m", "recycle_cli", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said
    return usage.ru_maxrss << 10


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("--segment-bytes", 4 << 20)], ids=["one segment", "many segments"])
def test_a_corpus_twenty_times_as_large_takes_no_more_memory(tmp_path, tiny_bert, options):
    rows = records(100_000)
    peaks = []
    for count in (5_000, 100_000):
        corpus = write_csv(tmp_path / f"{count}.csv", rows[:count])
        made = ("precompute", corpus, tmp_path / str(count), "--model", tiny_bert, "--cut", 2, *options)
        peaks.append(peak(*made))
    print(peaks, peaks[1] / peaks[0])
    assert peaks[1] <= 1.2 * peaks[0]
