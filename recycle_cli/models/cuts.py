"""Names of cuts: a block count, a share of the blocks, or `pooled`, each resolved to one canonical name; and lists of
them."""

import re
from collections.abc import Callable, Sequence

from recycle_cli.errors import UsageError

POOLED = "pooled"

STATE_0 = "0"
"""The state before the first block, the embeddings' output, where cuts are those of a store. In a training without one
it is the cut before everything: the whole model trains."""

NO_TRUNK = "cut 0 has no trunk: nothing is frozen and nothing is stored"
"""The answer of a whole model, whose head is all of it, to a request for rows."""

_LONGEST = 9
"""Digits of a block count; Python reads no number of thousands."""

_SHOWN = 40

_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")

_EVERY = re.compile(r"every(?::(\d{1,9}))?")


def asks_for_several(cut: str) -> bool:
    """Whether a user's word stands for several cuts: `every`, `every:2`, or a list with commas."""
    return "," in cut or _EVERY.fullmatch(cut.strip().lower()) is not None


def each_cut(asked: Sequence[str], states: Callable[[], Sequence[str]]) -> list[str]:
    """The cuts that a user's words name: each may be a list with commas between its cuts, `every` for each of the
    `states`, or `every:2` for every second of them, the first and the last included. Raises UsageError for `every:0`.
    """
    found: list[str] = []
    for cut in (part for words in asked for part in words.split(",")):
        if (every := _EVERY.fullmatch(cut.strip().lower())) is None:
            found.append(cut)
            continue
        if (step := int(every[1] or 1)) < 1:
            raise UsageError(f"--cut {quoted(cut)}: expected a number from 1 on, as every:2 for every second state")
        known = list(states())
        found += [*known[:-1:step], *known[-1:]]
    return list(dict.fromkeys(found))


def resolve_cut(cut: str, n_blocks: int) -> str:
    """The canonical name of a cut, a block count as text: `50%` of 6 blocks is `3`, `100%` is `6`, `0` is `0`.

    A share rounds to the nearest block, halves up; above 0% it is at least one block. Raises UsageError for a cut
    out of range or of another form, and for `pooled`, which a model with its pooling in the head does not have.
    """
    text = cut.strip().lower()
    digits = text.lstrip("0") or text[:1]
    if digits.isdecimal() and len(digits) <= _LONGEST and int(digits) <= n_blocks:
        return str(int(digits))
    if (share := _SHARE.fullmatch(text)) and float(share[1]) <= 100:
        return str(_blocks_of(float(share[1]), n_blocks))
    if text == POOLED:
        raise UsageError(
            f"cut pooled: text classification trains its pooling with the head, so that no pooled vector is frozen; "
            f"use 100% ({n_blocks} blocks) for the deepest cut"
        )
    raise UsageError(
        f"--cut {quoted(cut)}: expected a number of blocks from 0 to {n_blocks}, or a share of them from 0% to 100%; "
        "`recycle layers MODEL` lists the cuts"
    )


def quoted(cut: str) -> str:
    """What the user gave as a cut, in quotes, and no longer than a line has room for."""
    return repr(cut if len(cut) <= _SHOWN else f"{cut[:_SHOWN]}...")


def _blocks_of(percent: float, n_blocks: int) -> int:
    nearest = int(percent * n_blocks / 100 + 0.5)
    return max(nearest, 1) if percent > 0 else 0
