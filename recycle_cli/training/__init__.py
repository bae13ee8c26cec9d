"""Examples to a trained head."""
