"""Layers that stop training while the others go on, and the cut that moves behind them."""
