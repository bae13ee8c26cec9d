"""`recycle precompute`."""

from recycle_cli.cli.arguments import Corpus, StoreFolder, failures_beside
from recycle_cli.cli.early import check_there
from recycle_cli.cli.options import Asked, filled, with_options
from recycle_cli.reports import show, spinner
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings


@with_options(CorpusSettings, ModelSettings, PrecomputeSettings, leave_out=("label-column", "head-batchnorm"))
def precompute(corpus: Corpus, store: StoreFolder, asked: Asked) -> None:
    """Run the layers before the cut (the trunk) over CORPUS and keep in STORE the activations that it lacks."""
    check_there(corpus)
    with spinner("loading PyTorch"):
        from recycle_cli.verbs.precompute import precompute as run

    failures = asked["failures"] or failures_beside(store)
    records = filled(CorpusSettings, asked, source=tuple(corpus), failures=failures)
    report = run(records, store, filled(ModelSettings, asked), filled(PrecomputeSettings, asked))
    show(report, "Precomputed", as_json=asked["as_json"])
