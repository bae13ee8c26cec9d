"""Refusing options of freezing that cannot work together, or would do nothing."""

from recycle_cli.errors import UsageError
from recycle_cli.reports import check_picture
from recycle_cli.settings import FreezeSettings, Job, TrainingSettings
from recycle_cli.settings.option import each_option

OF_RULES = {
    "freeze-start": ("linear",),
    "freeze-level": ("linear",),
    "freeze-unit": ("linear",),
    "freeze-rule": ("gradient-norm",),
    "freeze-interval": ("gradient-norm", "autofreeze"),
    "freeze-share": ("bound",),
    "freeze-votes": ("gradient-norm", "autofreeze"),
}
"""The rules that take an option; those of all rules are not here."""


def refuse_of_freezing(job: Job, settings: TrainingSettings) -> None:
    """Raise UsageError for options that freezing cannot go with, and for its own that would do nothing."""
    about = settings.freezing
    _refuse_idle(about, "" if about.cache == "always" else why_not_kept(settings))
    if not about.freezes:
        return
    if about.plot is not None:
        check_picture("freeze-plot", about.plot)
    if settings.layers.reads_states:
        raise UsageError(
            f"--freeze {about.rule}: --head {settings.layers.kind} trains no block of the model, so that nothing can "
            "freeze; leave one of the two out"
        )
    if settings.adapter.kind != "none":
        raise UsageError(
            f"--freeze {about.rule}: --adapter {settings.adapter.kind} has frozen the blocks already; leave one of the "
            "two out"
        )
    if job.reuse is not None:
        raise UsageError(
            f"--freeze {about.rule}: with --reuse the other model's rows enter before the first block, and the model "
            "cannot be cut behind it; leave one of the two out"
        )
    if settings.mixup or settings.cutmix:
        raise UsageError(
            f"--freeze {about.rule}: --mixup and --cutmix mix rows where the head begins, which moves; leave them out"
        )
    if about.cache == "always" and (why := why_not_kept(settings)):
        raise UsageError(f"--freeze-cache always: {why}; take never")


def why_not_kept(settings: TrainingSettings) -> str:
    """Why rows behind frozen blocks cannot be kept from one epoch to the next; empty if they can."""
    if settings.views.views:
        return "with --views each epoch sees other images, whose rows no later epoch reads"
    return ""


def _refuse_idle(about: FreezeSettings, not_kept: str) -> None:
    """Raise UsageError for options that would do nothing. `not_kept`: why no rows can be kept; empty if they can."""
    given = {one.name: one for one in each_option(about) if one.is_changed and one.name != "freeze"}
    if given and not about.freezes:
        raise UsageError(f"--{next(iter(given))}: nothing freezes; add --freeze, or leave it out")
    for name in given:
        if (rules := OF_RULES.get(name)) is not None and about.rule not in rules:
            raise UsageError(f"--{name}: only --freeze {' and '.join(rules)} takes it, not {about.rule}")
    why = "with --freeze-cache never no rows are kept" if about.cache == "never" else not_kept
    idle = [name for name in ("freeze-dtype", "max-disk", "keep-scratch") if name in given]
    if idle and why:
        raise UsageError(f"--{idle[0]}: {why}; leave one of the two out")
