"""`recycle precompute`."""

from dataclasses import replace

from recycle_cli.cli.arguments import Corpus, StoreFolder, failures_beside, of_shard
from recycle_cli.cli.early import check_there
from recycle_cli.cli.options import Asked, filled, with_options
from recycle_cli.reports import show, spinner
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings, shard_of_torchrun


@with_options(CorpusSettings, ModelSettings, PrecomputeSettings, leave_out=("label-column", "head-batchnorm"))
def precompute(corpus: Corpus, store: StoreFolder, asked: Asked) -> None:
    """Run the layers before the cut (the trunk) over CORPUS and keep in STORE the activations that it lacks."""
    check_there(corpus)
    with spinner("loading PyTorch"):
        from recycle_cli.verbs.precompute import precompute as run

    settings = filled(PrecomputeSettings, asked)
    settings = replace(settings, shard=settings.shard or shard_of_torchrun())
    failures = of_shard(asked["failures"] or failures_beside(store), settings.shard)
    records = filled(CorpusSettings, asked, source=tuple(corpus), failures=failures)
    report = run(records, store, filled(ModelSettings, asked), settings)
    show(report, "Precomputed", as_json=asked["as_json"])
