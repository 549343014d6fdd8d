"""Samples and governors for tests of the governor."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from edge_app.clock import ManualClock
from edge_app.governor import Decision, Governor, Policy, load_policy
from edge_app.sensors import Battery, Quality, Reading, Sample, Zone, absent

LEVELS = (2, 4, 6, 8)
PROFILE = {2: 0.010, 4: 0.020, 6: 0.030, 8: 0.040}
SLOW_CPU = {2: 0.020, 4: 0.040, 6: 0.060, 8: 0.080}
"""At 30 frames a second 2 bits take 60 % of the CPU's time, and from 4 bits on all of it is taken."""
COOL, HOT = 50.0, 79.0
NOON = datetime(2026, 3, 29, 12, 0, tzinfo=timezone(timedelta(hours=1)))


def make_zone(
    value: float | None,
    time: float,
    quality: Quality = Quality.OK,
    name: str = "cpu-thermal",
    critical_c: float | None = None,
) -> Zone:
    return Zone(name, Reading(value, time, quality, name), None, critical_c)


def make_battery(charge: float | None, time: float, discharging: bool | None = True) -> Battery:
    quality = Quality.MISSING if charge is None else Quality.OK
    return Battery(True, Reading(charge, time, quality, "battery"), discharging)


def ok(value: float | None, time: float = 0.0, name: str = "") -> Reading:
    """A sound reading; ABSENT if there is no value."""
    return absent(name) if value is None else Reading(value, time, Quality.OK, name)


def no_battery(time: float) -> Battery:
    return Battery(False, Reading(None, time, Quality.ABSENT, "battery"))


def make_sample(time: float, celsius: float | None = COOL, charge: float | None = None) -> Sample:
    """A sample of one zone (none if ``celsius`` is None) and perhaps a battery in use."""
    zones = () if celsius is None else (make_zone(celsius, time),)
    battery = no_battery(time) if charge is None else make_battery(charge, time)
    return Sample(time, zones, battery)


def a_policy(*overrides: str) -> Policy:
    """The default policy, but with two rungs below the full rate: 7.5 and 15 frames a second."""
    return load_policy(None, overrides=["frame.min_fps=7.5", *overrides])


def make_governor(*overrides: str, levels: Sequence[int] = LEVELS) -> Governor:
    return Governor(a_policy(*overrides), levels, PROFILE, ManualClock())


def run(
    governor: Governor, sample: Callable[[float], Sample], start: int, seconds: int
) -> list[Decision]:
    """One step a second from ``start`` on."""
    return [governor.step(sample(float(second))) for second in range(start, start + seconds)]


def slow_sample(governor: Governor, factor: float) -> Callable[[float], Sample]:
    """Frames that take ``factor`` times their profile while nobody else wants the CPU."""

    def sample(t: float) -> Sample:
        for _ in range(10):
            governor.observe_latency(governor.level, PROFILE[governor.level] * factor)
        return replace(make_sample(t, 55.0), other_load=ok(0.05, t))

    return sample


def restarted(governor: Governor, *overrides: str) -> Governor:
    """Another governor that goes on from the state, through JSON, by a clock that starts at 0."""
    fresh = make_governor(*overrides)
    fresh.restore(json.loads(json.dumps(governor.state())))
    return fresh
