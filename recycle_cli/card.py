"""Saving a RUN: trunk and head in one checkpoint, tokenizer, label names, a model card with the figures."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from recycle_cli import __version__, runs
from recycle_cli.errors import StorageError
from recycle_cli.models import AnyLoaded
from recycle_cli.reports import human

CARD = """---
library_name: {library}
pipeline_tag: {task}
base_model: {model}
tags: [recycle]
---

# {model}, fine-tuned for {task}

Trained by `recycle` {recycle} from the cut `{cut}`{source}. Classes: {classes}.

| figure | value |
|---|---|
{figures}

It is an ordinary checkpoint: `{loads_with}` loads it, trunk and head in one.
`recycle predict DATA RUN --store STORE` takes what it can from the store. `recycle.json` tells how it was made.
"""


def versions() -> dict[str, str]:
    """Versions of what decides the figures of a run."""
    packages = ("torch", "torchvision", "transformers", "zarr", "numpy")
    found = {package: version(package) for package in packages}
    return {"recycle": __version__, "python": platform.python_version(), **found}


def save_run(folder: Path, loaded: AnyLoaded, about: Mapping[str, Any]) -> None:
    """Write the checkpoint into the RUN and mark it finished. Raises StorageError where the disk does not take it."""
    try:
        loaded.save(folder, about["max_length"])
        (folder / "README.md").write_text(_card(loaded, about), encoding="utf-8")
        runs.finish(folder, {**about, "versions": versions()})
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{folder} cannot be written ({error}); free some space, then --resume") from error


def _card(loaded: AnyLoaded, about: Mapping[str, Any]) -> str:
    report = about["report"]
    figures = {**report["metrics"], "train seconds": report["train_seconds"], "samples": report["samples"]}
    return CARD.format(
        task=about["task"],
        model=about["model"],
        cut=about["cut"],
        recycle=__version__,
        library=loaded.library,
        loads_with=loaded.loads_with,
        source=" of stored activations" if about["store"] else "",
        classes=", ".join(report["classes"]),
        figures="\n".join(f"| {name.replace('_', ' ')} | {human(name, value)} |" for name, value in figures.items()),
    )
