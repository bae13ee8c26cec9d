"""docs/tasks.md names every task and its metrics, and its commands run on the sample data."""

import re
import shlex
from pathlib import Path

import pytest

from recycle_cli.settings import TASKS
from recycle_cli.tasks import KINDS, task_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")


def sections():
    """The commands of each section, by its heading."""
    found = {}
    for section in PAGE.split("\n## ")[1:]:
        lines = [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
        found[section.splitlines()[0]] = [shlex.split(line)[1:] for line in lines if line.startswith("recycle ")]
    return {name: commands for name, commands in found.items() if commands}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_and_its_metrics_are_on_the_page(name):
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}`"))
    task = task_of(name, KINDS[name].modalities[0])
    assert "the same" in row or all(f"`{metric}`" in row for metric in task.metrics)


@pytest.mark.long
@pytest.mark.parametrize("section", sections())
def test_the_commands_of_a_section_run(recycle, tmp_path, minilm, section):
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    for command in sections()[section]:
        shorter = [*command, "--epochs", 1] if command[0] == "finetune" else command
        report = recycle.json(*shorter, cwd=tmp_path)
        if command[0] == "predict":
            assert report["hits"] == report["samples"]
            assert report["metrics"] is not None
