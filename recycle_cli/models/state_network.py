"""The small networks that read a model's states, in place of its own blocks: how a RUN keeps them."""

import json
import shutil
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass
from inspect import getfile
from pathlib import Path
from typing import Any, Generic, TypeVar

from safetensors import SafetensorError

from recycle_cli.errors import StoreError
from recycle_cli.models.embedding import EmbeddingLayer, numbered
from recycle_cli.models.ladder import Ladder, OtherFormatError
from recycle_cli.models.probe import Probe
from recycle_cli.models.task_layer import TaskLayer

ABOUT = "base.json"

N = TypeVar("N", Ladder, Probe)


@dataclass(frozen=True)
class Kept(Generic[N]):
    """How a RUN keeps one kind of network.

    kind    its class
    name    what a message calls it
    folder  in the RUN
    code    the file in it that loads the network without us
    """

    kind: type[N]
    name: str
    folder: str
    code: str


LADDER = Kept(Ladder, "ladder", "ladder", "ladder.py")
PROBE = Kept(Probe, "pooled head", "pooled", "probe.py")


@dataclass(frozen=True)
class Base:
    """The pretrained model whose states a network reads: how it is found again, and by what it is known to be the same.

    provenance  its name, revision, weights and transform, as a store keeps them
    recipe      all that decides its rows at the cuts that are read, with digests of its weights up to each
    row_shapes  of a row at each of these cuts
    labels      a name for each output of the network
    whole       whether the RUN has the model itself, in its folder `base`
    """

    provenance: Mapping[str, str]
    recipe: Mapping[str, Any]
    row_shapes: list[list[int]]
    labels: list[str]
    whole: bool = False


def outputs_of(network: Ladder | Probe, layer: TaskLayer) -> list[str]:
    """A name for each output of a network that ends with the layer of a task."""
    return list(numbered(network.shape.outputs) if layer.embeds else layer.labels or ())


def save_network(folder: Path, kept: Kept[N], network: N, base: Base) -> None:
    """Write a network into a RUN's folder, with what its pretrained model is, and the code that loads it without us."""
    target = folder / kept.folder
    target.mkdir(parents=True, exist_ok=True)
    plain = copy(network)
    plain._modules = dict(network._modules)
    if isinstance(network.output, EmbeddingLayer):
        plain.output = network.output.merged()
    plain.save(target)
    (target / ABOUT).write_text(json.dumps(asdict(base), indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(getfile(kept.kind), target / kept.code)


def load_network(folder: Path, kept: Kept[N]) -> tuple[N, Base]:
    """The network of a RUN, and the pretrained model that it was trained on. Raises StoreError if it is damaged, or if
    another version has saved it."""
    target = folder / kept.folder
    try:
        base = Base(**json.loads((target / ABOUT).read_text(encoding="utf-8")))
        return kept.kind.load(target).eval(), base
    except OtherFormatError as error:
        raise StoreError(f"{target}: {error}; train the run again") from error
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())
        raise StoreError(f"{target} is damaged ({said}); train the run again") from error
