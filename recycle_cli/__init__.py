"""Run the frozen half of a pretrained network once, then train, predict and serve from its stored activations."""

__version__ = "0.1.0"
