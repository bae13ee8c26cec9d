"""What the real command takes in memory at its peak, as the kernel counts it."""

import os
import random
import subprocess
import sys

import pytest

from recycle_cli.store import Store
from tests.conftest import WORDS, tiny_config
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


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_an_epoch_over_a_compressed_store_stays_within_the_memory_it_was_given(tmp_path, make_tiny, dtype):
    """The growth over a training of as many steps of the same shapes, whose rows are those of 32 samples again."""
    model = make_tiny("wide", tiny_config(hidden_size=384, num_hidden_layers=1, num_attention_heads=4))
    draw = random.Random(0)
    texts = {" ".join(draw.choices(WORDS, k=60)): draw.choice(["good", "bad"]) for _ in range(8_000)}
    rows = [{"text": text, "label": label} for text, label in texts.items()]
    store = tmp_path / "store"
    every, few = write_csv(tmp_path / "every.csv", rows), write_csv(tmp_path / "few.csv", rows[:32] * (len(rows) // 32))
    filling = ("--model", model, "--cut", "100%", "--dtype", dtype, "--codec", "lz4", "--segment-bytes", 16 << 20)
    peak("precompute", every, store, *filling)
    bytes_stored = sum(segment.summary.bytes for segment in Store.open(str(store)).segments)
    memory = bytes_stored // 5
    training = ("--epochs", 1, "--memory", memory)
    baseline = peak("finetune", few, store, "--output", tmp_path / "few", *training)
    growth = peak("finetune", every, store, "--output", tmp_path / "every", *training) - baseline
    print(f"{dtype}: {bytes_stored:,} bytes stored, --memory {memory:,}, growth {growth:,}")
    assert growth <= memory
