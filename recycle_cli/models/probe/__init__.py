"""Probes: heads that read pooled vectors of a model's states, and nothing else of the model."""

from recycle_cli.models.probe.build import begin_as_last_vector, depth_shares, new_probe
from recycle_cli.models.probe.network import Probe, ProbeShape

__all__ = ["Probe", "ProbeShape", "begin_as_last_vector", "depth_shares", "new_probe"]
