"""Show a plan to people."""

from collections.abc import Iterator
from typing import Any

from recycle_cli.plan.run import CutPlan, Plan
from recycle_cli.plan.states import HeadPlan
from recycle_cli.reports import counted, human, say, show_rows, size


def show_plan(plan: Plan) -> None:
    """Print a table of the cuts to stderr, and the figures it is based on."""
    title = f"{counted(plan.records, 'record')}, {plan.unique_samples:,} different"
    title += f", {plan.tokens:,} tokens" if plan.tokens is not None else ""
    title += f", --views {plan.views}" if plan.views else ""
    show_rows(f"{title} (to {plan.tokens_error_share:.1%})", [_row(cut, plan) for cut in plan.cuts])
    if plan.views:
        show_rows(f"What --views {plan.views} costs, beside the plain images alone", list(_views(plan)))
    show_rows("Bytes by dtype", [{"cut": cut.cut} | {d: size(n) for d, n in cut.bytes.items()} for cut in plan.cuts])
    if plan.heads is not None:
        show_rows(f"Heads, for {counted(plan.epochs, 'epoch')}", [_head(one) for one in plan.heads])
    tried = counted(plan.sample["tried"], "sample")
    say(
        f"full fine-tuning: {human('seconds', plan.full_epoch_seconds)} an epoch; {size(plan.free_disk_bytes)} of disk "
        f"and {human('bytes', plan.free_memory_bytes)} of memory are free; tried on {tried}"
    )


def _row(cut: CutPlan, plan: Plan) -> dict[str, Any]:
    rate = cut.measured_bytes_per_second
    return {
        "cut": cut.cut if cut.cut == cut.blocks else f"{cut.cut} ({cut.blocks})",
        f"{plan.dtype}": size(cut.bytes[plan.dtype]),
        "fill": human("seconds", cut.fill_seconds),
        "epoch, store": human("seconds", cut.store_epoch_seconds),
        "epoch, frozen": human("seconds", cut.frozen_epoch_seconds),
        "pays vs full": _epoch(cut.payback_epoch_vs_full),
        "vs frozen": _epoch(cut.payback_epoch_vs_frozen),
        "reads": f"{size(cut.needed_bytes_per_second)}/s of {'unknown' if rate is None else f'{size(rate)}/s'}",
        "verdict": cut.verdict,
    }


def _head(one: HeadPlan) -> dict[str, Any]:
    return {
        "head": one.head,
        "reads": one.cuts,
        "bytes": size(one.bytes),
        "fill": human("seconds", one.fill_seconds),
        "epoch": human("seconds", one.epoch_seconds) + (" (solved once)" if one.head == "pooled" else ""),
        "in all": human("seconds", one.total_seconds),
        "pays vs full": _epoch(one.payback_epoch),
        "verdict": one.verdict,
    }


def _views(plan: Plan) -> Iterator[dict[str, str]]:
    for cut in plan.cuts:
        plain = cut.without_views
        assert plain is not None
        yield {
            "cut": cut.cut,
            f"{plan.dtype}, plain": size(plain.bytes[plan.dtype]),
            "with views": size(cut.bytes[plan.dtype]),
            "fill, plain": human("seconds", plain.fill_seconds),
            "fill with views": human("seconds", cut.fill_seconds),
            "pays vs frozen, plain": _epoch(plain.payback_epoch_vs_frozen),
            "pays with views": _epoch(cut.payback_epoch_vs_frozen),
        }


def _epoch(number: int | None) -> str:
    return "never" if number is None else f"epoch {number}"
