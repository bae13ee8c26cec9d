"""`recycle layers`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recycle_cli.cli.options import Asked, filled, with_options
from recycle_cli.reports import show_json, show_rows, spinner
from recycle_cli.settings import ImageSettings, LayersSettings, ModelSettings
from recycle_cli.settings.option import options_of

if TYPE_CHECKING:
    from recycle_cli.models import Layer


@with_options(ModelSettings, LayersSettings, leave_out=("device", "precision", *options_of(ImageSettings)))
def layers(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Pretrained model: a folder, or a name on the hub or in torchvision.")
    ],
    asked: Asked,
) -> None:
    """List the cuts of MODEL: each one's share of the work and of the parameters, and the bytes that a sample takes."""
    with spinner("loading PyTorch"):
        from recycle_cli.models import NamedModel

    asked_for = filled(LayersSettings, asked)
    side = () if asked_for.image_size is None else (asked_for.image_size,)
    network = filled(ModelSettings, asked, images=ImageSettings(resize=side, crop=side))
    found, length = NamedModel(network).layers(asked_for.dtype)
    rows: list[Mapping[str, Any]] = [asdict(layer) for layer in found]
    if asked["as_json"]:
        show_json({"model": model, "max_length": length, "dtype": asked_for.dtype, "layers": rows})
    else:
        sample = "an image" if length is None else f"a sample of {length} tokens"
        show_rows(f"{model}: {sample} in {asked_for.dtype}", rows)
        if length is not None:
            show_rows("What a store for each kind of head keeps of it", _heads(found))


def _heads(layers: "Sequence[Layer]") -> list[Mapping[str, Any]]:
    """A row for the head of the cut in the middle, a ladder over every second state and a pooled head over all."""
    from recycle_cli.models import each_cut

    every = {layer.cut: layer for layer in layers}
    second = each_cut(("every:2",), lambda: list(every))
    half = min(layers, key=lambda layer: abs(layer.share - 0.5))
    return [
        {"head": "of a cut", "reads": half.cut, "bytes": half.bytes_per_sample},
        {"head": "ladder", "reads": ",".join(second), "bytes": sum(every[cut].bytes_per_sample for cut in second)},
        {"head": "pooled", "reads": ",".join(every), "bytes": sum(layer.pooled_bytes or 0 for layer in layers)},
    ]
