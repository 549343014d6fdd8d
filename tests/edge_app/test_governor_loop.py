"""The slow loop: its thread, its end, and what it does when something breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from governor_samples import a_policy

from edge_app.clock import RealClock
from edge_app.errors import EXIT_SENSOR, AppError
from edge_app.governor import Decision, Governor, GovernorLoop
from edge_app.sensors import Battery, Quality, Reading, Sample, SensorStatus, Zone

LEVELS = (2, 4, 6, 8)
PROFILE = {2: 0.010, 4: 0.020, 6: 0.030, 8: 0.040}


def make_sample(time: float, celsius: float | None = 50.0, charge: float | None = None) -> Sample:
    """A sample of one zone (none if ``celsius`` is None) and perhaps a battery in use."""
    reading = Reading(celsius, time, Quality.OK, "cpu-thermal")
    zones = () if celsius is None else (Zone("cpu-thermal", reading),)
    quality = Quality.ABSENT if charge is None else Quality.OK
    battery = Battery(charge is not None, Reading(charge, time, quality, "battery"), True)
    return Sample(time, zones, battery)


class ListSensors:
    """Samples from a function of the time; stands for a source of sensors."""

    def __init__(self, clock: RealClock, sample: Callable[[float], Sample]) -> None:
        self._clock = clock
        self._sample = sample

    def sample(self) -> Sample:
        return self._sample(self._clock.now())

    def describe(self) -> list[SensorStatus]:
        return []


def start_loop(
    sample: Callable[[float], Sample], *overrides: str
) -> tuple[Governor, GovernorLoop, list[Decision]]:
    clock = RealClock(speed=500.0)
    governor = Governor(a_policy(*overrides), LEVELS, PROFILE, clock)
    decisions: list[Decision] = []
    return (
        governor,
        GovernorLoop(governor, ListSensors(clock, sample), clock, decisions.append),
        decisions,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < limit, "nothing happened in 20 s"
        time.sleep(0.002)


def test_loop_decides_before_start_returns_and_goes_on_until_it_is_stopped() -> None:
    governor, loop, decisions = start_loop(make_sample)
    loop.start()
    try:
        assert decisions and governor.level == 8
        wait_until(lambda: len(decisions) >= 10)
    finally:
        loop.stop()
    count, threads = len(decisions), [thread.name for thread in threading.enumerate()]
    assert "governor" not in threads
    times = [decision.time for decision in decisions]
    # A machine that is late with one decision may be on time with the next.
    assert all(a < b for a, b in pairwise(times))
    assert (times[-1] - times[0]) / (count - 1) >= 0.5
    time.sleep(0.02)
    assert len(decisions) == count


def test_loop_that_breaks_leaves_the_lowest_rung(caplog: pytest.LogCaptureFixture) -> None:
    def sample(t: float) -> Sample:
        if t > 5.0:
            raise ZeroDivisionError("a bug")
        return make_sample(t)

    governor, loop, decisions = start_loop(sample)
    loop.start()
    wait_until(lambda: decisions[-1].cause == "failsafe")
    loop.stop()
    assert governor.level == 2 and decisions[-1].rung == 0 and decisions[-1].changed
    assert "a bug" in decisions[-1].why
    assert "ZeroDivisionError" in caplog.text


def test_stop_without_start() -> None:
    _, loop, _ = start_loop(make_sample)
    loop.stop()


@pytest.mark.parametrize("table", ["thermal", "battery"])
def test_required_sensor_that_is_missing(table: str) -> None:
    _, loop, decisions = start_loop(lambda t: make_sample(t, None), f"{table}.required=true")
    with pytest.raises(AppError, match=f"{table}.required = false") as caught:
        loop.start()
    assert caught.value.exit_code == EXIT_SENSOR and not decisions
    _, loop, decisions = start_loop(lambda t: make_sample(t, 50.0, 0.5), f"{table}.required=true")
    loop.start()
    loop.stop()
    assert decisions
