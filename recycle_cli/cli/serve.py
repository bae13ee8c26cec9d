"""`recycle serve`."""

from importlib.util import find_spec
from typing import Annotated

import typer

from recycle_cli.cli.options import Asked, filled, own, with_options
from recycle_cli.errors import UsageError
from recycle_cli.reports import show_json, spinner
from recycle_cli.settings import ImageSettings, ModelSettings, ServeSettings
from recycle_cli.settings.option import options_of

PACKAGES = ("fastapi", "uvicorn", "orjson", "prometheus_client", "multipart")


@with_options(ModelSettings, ServeSettings, leave_out=("model", *options_of(ImageSettings)))
def serve(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Folders of finished RUNs, as finetune --output left them, or models to embed texts with. "
            "NAME=RUN gives one another name.",
        ),
    ],
    asked: Asked,
    store: Annotated[
        list[str] | None,
        own("store", "Answer from what this store holds, and compute only the rest. May be repeated.", "Store"),
    ] = None,
) -> None:
    """Answer over HTTP with RUN's predictions and embeddings; what a --store holds is not computed again."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UsageError(f"recycle serve needs {', '.join(missing)}: pip install 'recycle-cli[serve]'")
    with spinner("loading PyTorch"):
        from recycle_cli.serve import serve as run

    network = filled(ModelSettings, asked, images=ImageSettings())
    settings = filled(ServeSettings, asked)
    run(runs, store or (), network, settings, show_json if asked["as_json"] else lambda about: None)
