"""A plan as people read it."""

from typing import Any

from recycle_cli.plan.run import CutPlan, Plan
from recycle_cli.reports import human, say, show_rows, size


def show_plan(plan: Plan) -> None:
    """A table of the cuts on stderr, and what it rests on."""
    title = f"{plan.records:,} records, {plan.unique_samples:,} different, {plan.tokens:,} tokens"
    show_rows(f"{title} (to {plan.tokens_error_share:.1%})", [_row(cut, plan) for cut in plan.cuts])
    show_rows("Bytes by dtype", [{"cut": cut.cut} | {d: size(n) for d, n in cut.bytes.items()} for cut in plan.cuts])
    say(
        f"full fine-tuning: {human('seconds', plan.full_epoch_seconds)} an epoch; {size(plan.free_disk_bytes)} of disk "
        f"and {human('bytes', plan.free_memory_bytes)} of memory are free; tried on {plan.sample['tried']:,} samples"
    )


def _row(cut: CutPlan, plan: Plan) -> dict[str, Any]:
    rate = cut.measured_bytes_per_second
    return {
        "cut": f"{cut.cut} ({cut.blocks})",
        f"{plan.dtype}": size(cut.bytes[plan.dtype]),
        "fill": human("seconds", cut.fill_seconds),
        "epoch, store": human("seconds", cut.store_epoch_seconds),
        "epoch, frozen": human("seconds", cut.frozen_epoch_seconds),
        "pays vs full": _epoch(cut.payback_epoch_vs_full),
        "vs frozen": _epoch(cut.payback_epoch_vs_frozen),
        "reads": f"{size(cut.needed_bytes_per_second)}/s of {'unknown' if rate is None else f'{size(rate)}/s'}",
        "verdict": cut.verdict,
    }


def _epoch(number: int | None) -> str:
    return "never" if number is None else f"epoch {number}"
