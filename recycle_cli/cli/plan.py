"""`recycle plan`."""

from dataclasses import asdict
from typing import Annotated

from recycle_cli.cli.arguments import Corpus
from recycle_cli.cli.options import Asked, filled, own, with_options
from recycle_cli.disk import expanded
from recycle_cli.reports import show_json, spinner
from recycle_cli.settings import CorpusSettings, ModelSettings, PlanSettings


@with_options(
    CorpusSettings,
    ModelSettings,
    PlanSettings,
    leave_out=("label-column", "id-column", "failures", "head-batchnorm"),
)
def plan(
    corpus: Corpus,
    asked: Asked,
    scratch: Annotated[
        str | None,
        own("scratch", "Folder on the disk to measure; by default the system's temporary folder.", "Measuring"),
    ] = None,
) -> None:
    """Forecast the bytes and the time of each cut, and when a store pays off, by trying a sample of CORPUS."""
    with spinner("loading PyTorch"):
        from recycle_cli.plan.run import plan as run
        from recycle_cli.plan.showing import show_plan

    records = filled(CorpusSettings, asked, source=tuple(corpus))
    found = run(records, filled(ModelSettings, asked), filled(PlanSettings, asked), scratch and expanded(scratch))
    if asked["as_json"]:
        show_json(asdict(found))
    else:
        show_plan(found)
