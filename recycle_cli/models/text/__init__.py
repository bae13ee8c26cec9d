"""Text models as a trunk and a head, cut at their blocks."""
