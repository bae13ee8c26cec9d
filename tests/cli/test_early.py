"""What is told before PyTorch is loaded, and what is missing on the command line."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules))
from recycle_cli.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("precompute", "{here}/nowhere.csv", "s"), "recycle: {here}/nowhere.csv: no such file; check the path\n"),
        (
            ("finetune", "data.csv", "--eval", "nowhere.csv", "--output", "r"),
            "nowhere.csv: no such file; check the path (r",
        ),
        (
            ("finetune", "nowhere.csv", "s", "--output", "r"),
            "nowhere.csv: no such file; check the path (relative to {here})",
        ),
        (("predict", "nowhere.csv", "no-run"), "nowhere.csv: no such file; check the path (relative to {here})"),
    ],
)
def test_what_is_not_there_is_told_without_waiting_for_pytorch(tmp_path, command, said):
    (tmp_path / "data.csv").write_text("text,label\na,b\n")
    (tmp_path / "s").mkdir()
    words = [word.format(here=tmp_path) for word in command]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3
    assert said.format(here=tmp_path) in done.stderr
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("command", "needed"), [("precompute", "CORPUS... and STORE"), ("predict", "CORPUS... and RUN")]
)
def test_of_several_missing_words_all_are_named(recycle, command, needed):
    done = recycle(command, "train.csv")
    assert done.code == 2
    assert f"Missing argument: {needed} are needed. Usage: " in done.err


def test_a_store_without_samples_that_has_another_recipe_can_be_removed(recycle, tiny_bert, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"text": "tea"}) + '\n{"text": "cut sho')
    data = tmp_path / "good.jsonl"
    data.write_text(json.dumps({"text": "tea"}) + "\n")
    options = ("--model", tiny_bert, "--cut", 2, "--max-length")
    assert recycle("precompute", bad, "store", *options, 16, cwd=tmp_path).code == 3
    done = recycle("precompute", data, "store", *options, 8, cwd=tmp_path)
    assert done.code == 4
    assert "(max_length: 16 in the store, 8 asked for)" in done.err
    assert done.err.endswith("it holds no samples yet, so it can be removed\n")
