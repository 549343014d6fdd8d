"""Whether a battery lasts `until` the time it is told to, for the scorecard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edge_app.clock import ManualClock
from edge_app.governor.controller import Governor
from edge_app.governor.decision import Decision
from edge_app.governor.simulation.bars import MOST_CHANGES_PER_HOUR, Bar, policy_at
from edge_app.governor.simulation.devices import DEVICES, Device
from edge_app.governor.simulation.run import Scenario, Tally, World
from edge_app.policy.model import Policy

END_HOURS = (4.0, 4.5, 5.0, 5.5, 6.0, 7.0)
IMPOSSIBLE_HOURS = 12.0
MODEL_ERRORS = (-0.25, 0.25)
MOST_LATE = 0.05
GAUGE_NOISE = 0.01
"""One standard deviation of a bad gauge's readings."""
GAUGE_STEP = 0.01
"""The reserve is known no better than the gauge tells the charge."""
CANNOT_LAST = "cannot_last"
"""The kind of the event that declares it."""
DECLARED_WITHIN_S = 60
RATE_S = 600
"""Over which the power at the end is measured."""
FPS = 2.0
FRAME_S = 0.4
"""A large network at a low rate: as much work as a small one at a high rate, sooner simulated."""


@dataclass(frozen=True)
class Endurance:
    """How a run with an `until` ended.

    ``lasted_s``: until the charge reached the reserve (less a step of the gauge). Past `until`
    that is at the mean power of the last ten minutes before it, so that what the governor does
    with a time that has passed does not count. ``in_an_hour``: the most changes in any hour.
    """

    lasted_s: float
    changes: int
    in_an_hour: int
    mean_bits: float


class Trip:
    """A device on its battery with our governor, which takes the device's power to be by
    ``error`` (of itself) other than it is."""

    def __init__(self, device: Device, policy: Policy, error: float, seed: int) -> None:
        self._clock = ManualClock()
        self._governor = Governor(policy, device.levels, device.profile(error), self._clock)
        self._world = World(Scenario(device, 24.0, seed))
        self.tally = Tally()
        assert self._world.cell is not None, "a device with a battery"
        self.cell = self._world.cell

    def second(self) -> Decision:
        """One second."""
        governor, world, now = self._governor, self._world, self._clock.now()
        decision = governor.step(world.instruments.sample(world.truth(now), now))
        self.tally.changes += decision.changed
        world.second(now, world.frames(governor, now, self.tally, None))
        self._clock.advance(1.0)
        return decision


def last_until(device: Device, policy: Policy, hours: float, error: float, seed: int) -> Endurance:
    """Go on until ``hours`` after the start, or until only the reserve is left."""
    trip = Trip(device, policy, error, seed)
    floor = policy.battery.reserve / 100.0 - GAUGE_STEP
    tally, cell, end_s = trip.tally, trip.cell, round(hours * 3600.0)
    before, lasted_s = cell.charge, 0.0
    changed: list[int] = []
    for second in range(end_s):
        if second == end_s - RATE_S:
            before = cell.charge
        if trip.second().changed:
            changed.append(second)
        lasted_s = second + 1.0
        if cell.charge <= floor:
            break
    else:
        a_second = max((before - cell.charge) / RATE_S, 1e-9)
        lasted_s += (cell.charge - floor) / a_second
    in_an_hour = max(
        (sum(0 <= other - at < 3600 for other in changed) for at in changed), default=0
    )
    return Endurance(lasted_s, len(changed), in_an_hour, tally.bits / max(1, tally.frames))


def until_policy(device: Device, hours: float) -> Policy:
    """The default policy at a pinned rate that must last ``hours``; without tiers, which would
    save charge that the budget means to spend."""
    minutes = device.start_hour * 60 + round(hours * 60.0)
    until = f"{minutes // 60 % 24:02}:{minutes % 60:02}:00"
    return policy_at(
        FPS,
        f"battery.until={until}",
        "battery.tiers=[]",
        "frame.min_fps=0.5",
        "frame.deadline_ms=1000",
    )


def handheld(tells_power: bool, gauge_noise: float | None = None) -> Device:
    """The handheld camera with that network; whether its battery tells watts or only charge, and by
    what its gauge errs, if not by little."""
    device = DEVICES["handheld-battery"]
    assert device.pack is not None
    noise = device.pack.gauge_noise if gauge_noise is None else gauge_noise
    pack = replace(device.pack, tells_power=tells_power, gauge_noise=noise)
    return replace(device, frame_s=FRAME_S, pack=pack)


def until_met() -> Iterator[Bar]:
    """Six end times, each with a governor that thinks the device draws less and more than it does,
    and with a battery that tells its power and one that only tells its charge."""
    for hours in END_HOURS:
        yield _until(hours, None, "")


def until_met_by_noise() -> Iterator[Bar]:
    """The same with a gauge whose every reading errs by another percent or so."""
    for hours in END_HOURS:
        yield _until(hours, GAUGE_NOISE, f", gauge noise {GAUGE_NOISE:.0%}")


def _until(hours: float, gauge_noise: float | None, case: str) -> Bar:
    worst = []
    for error in MODEL_ERRORS:
        for tells_power in (True, False):
            device = handheld(tells_power, gauge_noise)
            policy = until_policy(device, hours)
            worst.append(last_until(device, policy, hours, error, seed=round(hours * 10)))
    late = [ended.lasted_s / (hours * 3600.0) - 1.0 for ended in worst]
    changes = max(ended.changes for ended in worst)
    in_an_hour = max(ended.in_an_hour for ended in worst)
    return Bar(
        "until",
        f"{hours:g} h, powers wrong by -25 %, +25 %{case}",
        f"{min(late):+.1%} .. {max(late):+.1%}, at most {changes} changes, {in_an_hour} in an hour",
        f"-0 .. +{MOST_LATE:.0%}, <= {MOST_CHANGES_PER_HOUR:g} in any hour",
        min(late) >= 0 and max(late) <= MOST_LATE and in_an_hour <= MOST_CHANGES_PER_HOUR,
    )


def impossible_declared() -> Iterator[Bar]:
    """An end time that even the lowest rung does not reach."""
    device = handheld(tells_power=True)
    assert device.pack is not None
    policy = until_policy(device, IMPOSSIBLE_HOURS)
    lowest_w = device.profile().watts(policy.levels.min_bits, policy.frame.min_fps)
    best_hours = device.pack.capacity_wh / lowest_w
    for error in MODEL_ERRORS:
        trip = Trip(device, policy, error, seed=1)
        said = [trip.second().events for _ in range(DECLARED_WITHIN_S)]
        times = [at for at, events in enumerate(said) if any(e.kind == CANNOT_LAST for e in events)]
        yield Bar(
            "until",
            f"{IMPOSSIBLE_HOURS:g} h, powers wrong by {error:+.0%}",
            (f"declared impossible after {times[0]} s" if times else "not declared")
            + f"; the lowest rung lasts {best_hours:.1f} h",
            f"declared within {DECLARED_WITHIN_S} s",
            bool(times) and best_hours < IMPOSSIBLE_HOURS,
        )
