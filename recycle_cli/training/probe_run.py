"""A probe in its RUN: written with what its pretrained model is, tried before the training, and read again."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError

from recycle_cli.errors import ModelError, StorageError
from recycle_cli.keys import Sample
from recycle_cli.models import BASE, NamedModel, SplitModel, TaskLayer
from recycle_cli.models.hub import quiet
from recycle_cli.models.ladder import Base
from recycle_cli.models.probe import Probe, load_probe, outputs_of, save_probe
from recycle_cli.reports import spinner
from recycle_cli.runtime.devices import device_holding, to_device
from recycle_cli.store import Store
from recycle_cli.training.ladder_run import TOLERANCE, base_again, base_of
from recycle_cli.training.probe_head import ProbeHead
from recycle_cli.training.setup import Setup


def write_probe(
    setup: Setup, head: ProbeHead, layer: TaskLayer, folder: Path, max_length: int | None, *, whole: bool
) -> None:
    """Write a probe as its RUN holds it; if it is to be `whole` its pretrained model too, into RUN/base."""
    save_probe(folder, head.probe, _base(setup, head, layer, whole=whole))
    if whole:
        with quiet():
            setup.loaded.save(folder / BASE, max_length)


def _base(setup: Setup, head: ProbeHead, layer: TaskLayer, *, whole: bool) -> Base:
    shapes = [[width] for width in head.probe.shape.widths]
    return base_of(setup, shapes, outputs_of(head.probe, layer), whole=whole)


def prove_probe(setup: Setup, layer: TaskLayer, head: ProbeHead, samples: Sequence[Sample], folder: Path) -> None:
    """Write a probe and read it again: it must give the same for a few samples. Raises ModelError if it does not, and
    StorageError if the disk of `folder`, the RUN's, does not take it."""
    disk = next(one for one in (folder.resolve(), *folder.resolve().parents) if one.is_dir())
    inputs = to_device(setup.split.collate(setup.split.prepare(samples)), device_holding(setup.split.model))
    alone = ProbeHead(setup.split, head.cut, (), deepcopy(head.probe).eval())
    trial = spinner("trying to save and to load its RUN")
    with trial, torch.no_grad(), torch.random.fork_rng():
        for one in alone.weights.values():  # those of a linear head are all 0 until it is solved
            one.normal_(std=0.02)
        features = alone.features(inputs)
        expected = alone.probe(features)
        with TemporaryDirectory(prefix="recycle-proof-", dir=disk) as place:
            try:
                save_probe(Path(place), alone.probe, _base(setup, alone, layer, whole=False))
            except (OSError, SafetensorError) as error:
                raise StorageError(
                    f"{disk} cannot be written ({error}), where the RUN is tried first; free some space, or choose "
                    "another --output"
                ) from error
            again = load_probe(Path(place))[0].to(features.device)(features)
    off = float((expected - again).abs().max() / expected.abs().max().clamp_min(1e-30))
    if not off <= TOLERANCE:
        raise ModelError(f"the pooled head, saved and loaded, gives outputs {off:.1e} off; name other cuts")


def read_probe(
    run: str, computing: NamedModel, store: Store | None, *, cut: str, every_cut: bool
) -> tuple[NamedModel, SplitModel, Probe, Base]:
    """The probe of a RUN, and its pretrained model as `base_again` gives it."""
    probe, base = load_probe(Path(run))
    return *base_again(run, base, computing, store, cut=cut, every_cut=every_cut, pooled=True), probe, base
