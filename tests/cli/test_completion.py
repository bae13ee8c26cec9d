"""A shell completes commands, all options and their values."""

import os
import subprocess
import sys

import pytest

RUN = "import sys; sys.argv = ['recycle']; from recycle_cli.__main__ import main; main()"


@pytest.fixture(scope="module")
def completed():
    """What bash is offered for the last of these words."""

    def complete(words):
        environment = {**os.environ, "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        environment["_RECYCLE_COMPLETE"] = "complete_bash"
        done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, env=environment, check=True)
        return done.stdout.split()

    return complete


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("recycle fin", ["finetune"]),
        ("recycle store ve", ["verify"]),
        ("recycle finetune x.csv --epo", ["--epochs"]),
        ("recycle finetune x.csv --warm", ["--warmup-share"]),
        ("recycle finetune x.csv --warmup-share 1 --warm", []),
        ("recycle finetune x.csv --adapter ", ["none", "lora", "bottleneck"]),
    ],
)
def test_what_bash_is_offered(completed, words, expected):
    assert completed(words) == expected


def test_nothing_is_run_or_read_while_completing(completed):
    assert completed("recycle finetune x.csv --config none.toml --pati") == ["--patience"]
