"""Experiment trackers, which get the figures of a training. One file each."""

from recycle_cli.runs.trackers.contract import About, Tracker, TrackerKind
from recycle_cli.runs.trackers.kinds import TRACKERS
from recycle_cli.runs.trackers.tracking import check_trackers, installed, tracking

__all__ = ["TRACKERS", "About", "Tracker", "TrackerKind", "check_trackers", "installed", "tracking"]
