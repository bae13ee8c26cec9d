"""Whether a store would pay, in words."""

from recycle_cli.reports import size


def verdict(pays: int | None, epochs: int, needed: int, free: int) -> tuple[bool, str]:
    """Whether to cache, and why. `pays`: the epoch in which it pays back against freezing without a store, or never.

    Freezing without a store is what to beat, for it trains the very same head.
    """
    if needed > free:
        return False, f"do not cache: needs {size(needed)}, {size(free)} are free"
    if pays is None:
        return False, "do not cache: an epoch from the store is no faster"
    if pays > epochs:
        return False, f"do not cache: pays back in epoch {pays} of {epochs}"
    return True, f"cache: pays back in epoch {pays} of {epochs}"
