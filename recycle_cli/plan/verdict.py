"""Say in words whether a store would pay."""

from recycle_cli.reports import size


def verdict(pays: int | None, epochs: int, needed: int, free: int) -> tuple[bool, str]:
    """Decide whether to cache, and say why. `pays` is the epoch in which a store pays back, or None for never.

    The comparison is with freezing without a store, since that trains the same head.
    """
    if needed > free:
        return False, f"do not cache: needs {size(needed)}, {size(free)} are free"
    if pays is None:
        return False, "do not cache: an epoch from the store is no faster"
    if pays > epochs:
        return False, f"do not cache: pays back in epoch {pays} of {epochs}"
    return True, f"cache: pays back in epoch {pays} of {epochs}"
