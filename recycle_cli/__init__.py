"""Run the frozen half of a pretrained network once, then train and predict from its stored activations."""

__version__ = "0.1.0"
