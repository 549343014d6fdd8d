"""Samples and trackers for tests of the battery cap."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from governor_samples import a_policy

from edge_app.governor.battery import BatteryTracker
from edge_app.governor.energy import Profile
from edge_app.governor.ladder import build_ladder
from edge_app.sensors import Battery, Quality, Reading, Sample, absent

POLICY = a_policy()
LADDER = build_ladder((2, 4, 6, 8), POLICY)
PROFILE = Profile.from_seconds({2: 0.010, 4: 0.020, 6: 0.030, 8: 0.032}, 2.0, 3.0)
# 7.5, 15 and 30 fps at 2 bits, then 4, 6 and 8 bits at 30 fps.
WATTS = [2.225, 2.45, 2.9, 3.8, 4.7, 4.88]
TOP = LADDER.top
FULL_J = 36_000.0
NOON = datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))


def make_tracker(*overrides: str) -> BatteryTracker:
    policy = a_policy(*overrides)
    return BatteryTracker(policy, build_ladder((2, 4, 6, 8), policy), PROFILE)


def reading(value: float | None, time: float) -> Reading:
    quality = Quality.MISSING if value is None else Quality.OK
    return Reading(value, time, quality, "battery")


def make_sample(
    time: float,
    charge: float | None,
    discharging: bool | None = True,
    on_ac: bool | None = None,
    wall: datetime | None = None,
    full_j: float | None = FULL_J,
    power_w: float | None = None,
) -> Sample:
    power = absent("") if power_w is None else reading(power_w, time)
    battery = Battery(True, reading(charge, time), discharging, on_ac, power=power, full_j=full_j)
    return Sample(time, (), battery, wall=wall)


def caps(
    tracker: BatteryTracker, sample: Callable[[float], Sample], start: int, seconds: int
) -> list[int]:
    """The rung allowed in each second."""
    return [
        tracker.update(sample(float(second)), float(second), TOP).rung
        for second in range(start, start + seconds)
    ]


def kinds(tracker: BatteryTracker) -> list[str]:
    return [event.kind for event in tracker.events()]
