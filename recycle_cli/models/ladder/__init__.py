"""Ladders: small networks that read a model's states at several depths, in place of its own blocks."""

from recycle_cli.models.ladder.build import new_ladder
from recycle_cli.models.ladder.layout import Layout
from recycle_cli.models.ladder.network import FORMAT, Ladder, OtherFormatError

__all__ = ["FORMAT", "Ladder", "Layout", "OtherFormatError", "new_ladder"]
