"""The model card of a RUN: what it is, how good, and how to load it."""

from recycle_cli import __version__
from recycle_cli.models import AnyLoaded, LoadedImages, LoadedPooled
from recycle_cli.reports import human, in_line
from recycle_cli.runs.metadata import RunInfo

_CARD = """---
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

{measured}

{how_to_load}
`recycle predict DATA RUN --store STORE` takes what it can from the store. `recycle.json` tells how it was made.
"""

_POOLED = (
    "Its encoder is an ordinary checkpoint, which `{}` loads; the pooled head is in `head`. The page docs/tasks.md of "
    "`recycle` has the few lines that put the two together."
)
_WHOLE = "It is an ordinary checkpoint: `{}` loads it, trunk and head in one."
_APART = (
    "Its adapters are kept apart, in `adapter`, and cannot be merged: it is no ordinary checkpoint, and `base` alone "
    "gives no answers. `recycle predict` puts the two together."
)

_REUSING = (
    "It adds the rows of another model, `{}`, to those of its embeddings: the model is in `base`, which alone gives "
    "other outputs, and the layers that bring the rows in are in `reuse`. The page docs/tasks.md of `recycle` has the "
    "few lines that put them together."
)

LADDER = (
    "It is a ladder, a small network in `ladder` that reads hidden states of {base}, and no ordinary checkpoint: "
    "`recycle predict` puts the two together. `ladder/ladder.py` loads it with PyTorch and safetensors alone."
)


POOLED_HEAD = (
    "It is a pooled head, in `pooled`, that reads vectors of hidden states of {base}, and no ordinary checkpoint: "
    "`recycle predict` puts the two together. `pooled/probe.py` loads it with PyTorch and safetensors alone."
)


def card_of(loaded: AnyLoaded, info: RunInfo, pipeline: str, outputs: str) -> str:
    """The card as Markdown. `pipeline`: the hub's tag for such a model; `outputs`: a sentence on its outputs."""
    report, (library, how_to_load) = info.report, _how_to_load(loaded, info)
    figures = {**report["metrics"], "train seconds": report["train_seconds"], "samples": report["samples"]}
    return _CARD.format(
        task=info.task,
        pipeline=pipeline,
        model=in_line(info.model),
        cut=in_line(info.cut),
        recycle=__version__,
        library=library,
        how_to_load=how_to_load,
        source=" of stored activations" if info.store else "",
        weights=f" The weights it began with: {in_line(loaded.weights)}." if isinstance(loaded, LoadedImages) else "",
        outputs=in_line(outputs),
        measured=_measured(info),
        figures="\n".join(f"| {name.replace('_', ' ')} | {human(name, value)} |" for name, value in figures.items()),
    )


def _how_to_load(loaded: AnyLoaded, info: RunInfo) -> tuple[str, str]:
    """The library that loads the RUN, and a sentence on how to load it without recycle."""
    if info.reuse is not None:
        return "recycle", _REUSING.format(in_line(info.reuse["provenance"]["model"]))
    if info.ladder:
        return "recycle", LADDER.format(base=f"`{in_line(info.model)}`")
    if info.pooled:
        return "recycle", POOLED_HEAD.format(base=f"`{in_line(info.model)}`")
    if info.apart:
        return "recycle", _APART
    return loaded.library, (_POOLED if isinstance(loaded, LoadedPooled) else _WHOLE).format(loaded.loads_with)


def _measured(info: RunInfo) -> str:
    """A sentence on the data that the figures were measured on."""
    if info.evaluated_on is None:
        return "The loss is that of the last training step; there was no evaluation."
    named, epoch = ", ".join(f"`{in_line(name)}`" for name in info.evaluated_on), info.report["best_epoch"]
    metrics = ", ".join(name.replace("_", " ") for name in info.report["metrics"])
    return f"Measured on {named}, with the best weights of the training (epoch {epoch}): {metrics}."
