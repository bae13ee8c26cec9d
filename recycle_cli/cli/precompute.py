"""`recycle precompute`."""

from dataclasses import replace

from recycle_cli.cli.arguments import Corpus, StoreFolder, failures_beside, of_shard
from recycle_cli.cli.early import check_there
from recycle_cli.cli.options import Asked, filled, with_options
from recycle_cli.errors import UsageError
from recycle_cli.reports import show, spinner
from recycle_cli.settings import (
    CorpusSettings,
    EngineSettings,
    ModelSettings,
    PrecomputeSettings,
    Shard,
    shard_of_torchrun,
)


def _of_launcher() -> Shard | None:
    try:
        return shard_of_torchrun()
    except ValueError as error:
        raise UsageError(str(error)) from None


@with_options(
    CorpusSettings, ModelSettings, PrecomputeSettings, EngineSettings, leave_out=("label-column", "head-batchnorm")
)
def precompute(corpus: Corpus, store: StoreFolder, asked: Asked) -> None:
    """Run the layers before the cut (the trunk) over CORPUS and keep in STORE the activations that it lacks."""
    engine = filled(EngineSettings, asked)
    check_there(corpus)
    settings = filled(PrecomputeSettings, asked)
    settings = replace(settings, shard=settings.shard or _of_launcher())
    failures = of_shard(asked["failures"] or failures_beside(store), settings.shard)
    records = filled(CorpusSettings, asked, source=tuple(corpus), failures=failures)
    model = filled(ModelSettings, asked)
    with spinner("loading PyTorch"):
        from recycle_cli.verbs.on_ray.driver import precompute_on_ray
        from recycle_cli.verbs.precompute import Precomputed
        from recycle_cli.verbs.precompute import precompute as run

    report: Precomputed = (
        precompute_on_ray(records, store, model, settings, engine)
        if engine.engine == "ray"
        else run(records, store, model, settings)
    )
    show(report, "Precomputed", as_json=asked["as_json"])
