"""Seconds of the phases of a training, those of a device that lags behind too."""

import pytest
import torch

from recycle_cli.training.phases import Phases


class Device:
    """A device that has done the first `done` events it was given; each comes 10 ms after the one before."""

    def __init__(self):
        self.events, self.done = 0, 0

    def event(self, *, enable_timing):
        return Event(self)


class Event:
    """An event of this device, with the interface of torch.cuda.Event."""

    def __init__(self, device):
        self.device = device

    def record(self):
        self.device.events += 1
        self.number = self.device.events

    def query(self):
        return self.number <= self.device.done

    def synchronize(self):
        self.device.done = max(self.device.done, self.number)

    def elapsed_time(self, end):
        assert self.query()
        assert end.query()
        return 10.0 * (end.number - self.number)


def test_the_seconds_of_a_device_are_all_told_and_few_events_are_held(monkeypatch):
    device, held = Device(), []
    monkeypatch.setattr(torch.cuda, "Event", device.event)
    phases = Phases(torch.device("cuda"))
    for number in range(100):
        for name in ("forward", "backward"):
            with phases.of(name):
                pass
        device.done = max(0, device.events - 6)
        held.append(len(phases._marks))
        if number == 49:
            assert phases.take() == pytest.approx({"forward": 0.5, "backward": 0.5})
    assert max(held) <= 8
    assert phases.take() == pytest.approx({"forward": 0.5, "backward": 0.5})
    assert phases.take() == {}
