"""Saving a RUN: trunk and head in one checkpoint, tokenizer, label names, a model card with the figures."""

import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from recycle_cli import __version__
from recycle_cli import runs
from recycle_cli.errors import StorageError
from recycle_cli.models import AnyLoaded, LoadedImages
from recycle_cli.reports import human
from recycle_cli.tasks import SIMILARITY

PIPELINES = {
    "sentence-transformers": "sentence-similarity",
    "transformers": "image-feature-extraction",
    "torchvision": "image-feature-extraction",
}
"""What a model hub calls an embedder, by its library."""

Save = Callable[[Path, int | None], None]

CARD = """---
library_name: {library}
pipeline_tag: {pipeline}
base_model: {model}
tags: [recycle]
---

# {model}, fine-tuned for {task}

Trained by `recycle` {recycle} from the cut `{cut}`{source}. {outputs}.{weights}

| figure | value |
|---|---|
{figures}

{of_what}

{how_to_load}
`recycle predict DATA RUN --store STORE` takes what it can from the store. `recycle.json` tells how it was made.
"""


WHOLE = "It is an ordinary checkpoint: `{}` loads it, trunk and head in one."
APART = (
    "Its adapters are kept apart, in `adapter`, and cannot be merged: it is no ordinary checkpoint, and `base` alone "
    "gives no answers. `recycle predict` puts the two together."
)


def versions() -> dict[str, str]:
    """Versions of what decides the figures of a run."""
    packages = ("torch", "torchvision", "transformers", "zarr", "numpy")
    found = {package: version(package) for package in packages}
    return {"recycle": __version__, "python": platform.python_version(), **found}


def save_run(folder: Path, loaded: AnyLoaded, about: Mapping[str, Any], save: Save | None = None) -> None:
    """Write the checkpoint into the RUN and mark it finished. Raises StorageError where the disk does not take it.

    `save` writes it in another way than the model's own.
    """
    try:
        (save or loaded.save)(folder, about["max_length"])
        card = folder / "README.md"
        card.write_text(_card(loaded, about), encoding="utf-8")
        for tensors in folder.rglob("*.safetensors"):  # safetensors writes them for their owner alone
            tensors.chmod(card.stat().st_mode)
        runs.finish(folder, {**about, "versions": versions()})
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{folder} cannot be written ({error}); free some space, then --resume") from error


def _card(loaded: AnyLoaded, about: Mapping[str, Any]) -> str:
    report = about["report"]
    embeds = about["task"] == SIMILARITY
    several = ", of which a sample may have several" if about.get("multi_label") else ""
    figures = {**report["metrics"], "train seconds": report["train_seconds"], "samples": report["samples"]}
    return CARD.format(
        task=about["task"],
        pipeline=PIPELINES[loaded.library] if embeds else about["task"],
        model=about["model"],
        cut=about["cut"],
        recycle=__version__,
        library=loaded.library,
        how_to_load=APART if about.get("apart") else WHOLE.format(loaded.loads_with),
        source=" of stored activations" if about["store"] else "",
        weights=f" The weights it began with: {loaded.weights}." if isinstance(loaded, LoadedImages) else "",
        outputs="Its outputs are an embedding" if embeds else f"Classes{several}: {', '.join(report['classes'])}",
        of_what=_of_what(about),
        figures="\n".join(f"| {name.replace('_', ' ')} | {human(name, value)} |" for name, value in figures.items()),
    )


def _of_what(about: Mapping[str, Any]) -> str:
    if about["evaluated_on"] is None:
        return "The loss is that of the last training step; there was no evaluation."
    named, epoch = ", ".join(f"`{name}`" for name in about["evaluated_on"]), about["report"]["best_epoch"]
    metrics = ", ".join(name.replace("_", " ") for name in about["report"]["metrics"])
    return f"Measured on {named}, with the best weights of the training (epoch {epoch}): {metrics}."
