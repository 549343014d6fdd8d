"""A tracker of thermal zones, and what tests feed it with."""

from __future__ import annotations

from governor_samples import COOL, a_policy, make_zone, no_battery

from edge_app.governor.tracking import ThermalTracker
from edge_app.sensors import Quality, Sample, Zone


def make_tracker(*overrides: str) -> ThermalTracker:
    return ThermalTracker(a_policy(*overrides))


class Feed:
    """Gives a tracker samples and keeps the time between them."""

    def __init__(self, tracker: ThermalTracker, start: float = 0.0) -> None:
        self.tracker = tracker
        self.time: float | None = None
        self.start = start

    def __call__(self, time: float, *zones: Zone, effort: float | None = None) -> ThermalTracker:
        step = 0.0 if self.time is None else time - self.time
        self.time = time
        self.tracker.update(Sample(time, zones, no_battery(time)), time, step, effort)
        return self.tracker


def cool(time: float, celsius: float = COOL, name: str = "cpu-thermal") -> Zone:
    return make_zone(celsius, time, name=name)


def gone(time: float, name: str = "cpu-thermal") -> Zone:
    return make_zone(None, time, Quality.MISSING, name)


def lost_tracker() -> Feed:
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0))
    feed(10.0, gone(10.0))
    feed.tracker.events.clear()
    return feed
