"""One loop for every governor: sense, decide, run frames, let a second of physics pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_app.clock import ManualClock
from edge_app.governor.simulation.baselines import Controller, Step
from edge_app.governor.simulation.devices import Device
from edge_app.governor.simulation.instruments import Fault, Instruments, Truth
from edge_app.governor.simulation.noise import Noise
from edge_app.governor.simulation.plant import Cell, Heat, KernelThrottle, at

SOURCE_FPS = 30.0
"""What the camera gives where the policy does not pin a rate."""
ROW_S = 30
FRAME_NOISE = 0.03
HICCUP_ONE_IN = 500
HICCUP_FACTOR = 2.0
CONTENTION = 0.5
"""Share of the machine that a frame loses when other programs use all of it."""


@dataclass(frozen=True)
class Scenario:
    """What happens to a device, whoever governs it.

    ``control_c``: what the minutes above it are counted against. ``energy_error``: by how much
    of itself the battery's stated capacity is wrong. ``start_c``: temperature of everything at
    the start; None: that of the surroundings.
    """

    device: Device
    hours: float
    seed: int = 1
    faults: tuple[Fault, ...] = ()
    control_c: float = 78.0
    energy_error: float = 0.0
    start_c: float | None = None


@dataclass
class Curves:
    """One entry for every half minute."""

    hours: list[float] = field(default_factory=list)
    chip_c: list[float | None] = field(default_factory=list)
    bits: list[int] = field(default_factory=list)
    fps: list[float] = field(default_factory=list)
    charge: list[float | None] = field(default_factory=list)


@dataclass
class Tally:
    """Sums over a run; ``None`` where there is nothing to count.

    ``throttled_from_s``: when the kernel first throttled. ``died_s``, ``death``: when and of what
    the device died. ``charge``: at the end.
    """

    seconds: int = 0
    peak_c: float = -273.15
    above_control_s: int = 0
    throttled_s: int = 0
    throttled_from_s: float | None = None
    changes: int = 0
    frames: int = 0
    bits: int = 0
    accuracy: float = 0.0
    joules: float = 0.0
    died_s: int | None = None
    death: str = ""
    charge: float | None = None

    def summary(self, knows_accuracy: bool) -> dict[str, Any]:
        """The comparison's columns, rounded."""
        hours = max(self.seconds, 1) / 3600.0
        frames = max(self.frames, 1)
        return {
            "hours": round(self.seconds / 3600.0, 3),
            "peak_c": None if self.peak_c < -273.0 else round(self.peak_c, 1),
            "minutes_above_control": round(self.above_control_s / 60.0, 1),
            "minutes_throttled": round(self.throttled_s / 60.0, 1),
            "changes_per_hour": round(self.changes / hours, 1),
            "mean_bits": round(self.bits / frames, 2),
            "mean_fps": round(self.frames / max(self.seconds, 1), 2),
            "accuracy": round(self.accuracy / frames, 4) if knows_accuracy else None,
            "energy_wh": round(self.joules / 3600.0, 2),
            "died_after_hours": None if self.died_s is None else round(self.died_s / 3600.0, 3),
            "died_of": self.death or None,
            "charge": None if self.charge is None else round(self.charge, 4),
        }


@dataclass
class Run:
    """What came of one governor in one scenario."""

    name: str
    tally: Tally
    curves: Curves
    accuracy: Mapping[int, float] | None = None

    def summary(self) -> dict[str, Any]:
        return {"governor": self.name, **self.tally.summary(self.accuracy is not None)}


Observer = Callable[[float, Step], None]
"""Called with the time and the decision, every second."""


class World:
    """A device with its surroundings, one second at a time."""

    def __init__(self, scenario: Scenario) -> None:
        device = scenario.device
        self.scenario = scenario
        self.device = device
        noise = Noise(scenario.seed)
        self._frame_noise = Noise(scenario.seed + 1_000_003)
        start_c = scenario.start_c
        self.heat = Heat(device.thermals, at(device.ambient, 0.0) if start_c is None else start_c)
        self.kernel = KernelThrottle(device.thermals.throttle_c)
        self.cell = Cell(device.pack, device.start_charge) if device.pack else None
        self.instruments = Instruments(device, noise, scenario.faults, scenario.energy_error)
        self.watts = device.idle_w
        self._seconds = {bits: device.frame_s * share for bits, share in device.shares.items()}
        self._frame_started = -1.0
        self._frame_ended = 0.0

    def truth(self, now: float) -> Truth:
        """What there is to be measured at ``now``."""
        others = at(self.device.others, now / 3600.0)
        # What the battery's gauge sees: the device's watts less the charger's.
        net = self.watts - at(self.device.charger, now / 3600.0)
        return Truth(self.heat.chip_c, self.kernel.clock, others, net, self.cell)

    def frames(
        self,
        controller: Controller,
        now: float,
        tally: Tally,
        accuracy: Mapping[int, float] | None,
    ) -> float:
        """Run the frames that begin within the second from ``now``; joules of inference."""
        if controller.paused:
            return 0.0
        others = at(self.device.others, now / 3600.0)
        clock, active_w = self.kernel.clock, self.device.active_w
        slower = 1.0 / (clock * (1.0 - CONTENTION * others))
        noise, joules = self._frame_noise, 0.0
        interval = max(controller.frame_interval_s, 1.0 / SOURCE_FPS)
        begin = max(self._frame_ended, self._frame_started + interval, now)
        while begin < now + 1.0:
            bits = controller.first_level
            took = work = 0.0
            again: int | None = bits
            while again is not None:
                bits = again
                seconds = self._seconds[bits]
                one = seconds * slower * (1.0 + noise.draw(FRAME_NOISE))
                if noise.chance(HICCUP_ONE_IN):
                    one *= HICCUP_FACTOR
                controller.observe_latency(bits, one)
                took += one
                work += seconds
                again = None
                if bits < controller.level and work == seconds:
                    again = controller.escalate(bits, noise.uniform(0.0, 1.0))
            # Power falls with the square of the clock (its voltage falls, too), time grows with
            # its inverse: a frame's energy is proportional to the clock.
            joules += work * active_w * clock
            tally.frames += 1
            tally.bits += bits
            if accuracy is not None:
                tally.accuracy += accuracy[bits]
            self._frame_started, self._frame_ended = begin, begin + took
            begin = max(begin + took, begin + interval)
        return joules

    def second(self, now: float, inference_j: float) -> str:
        """Let a second pass; says what the device has died of, or nothing."""
        device, hour = self.device, now / 3600.0
        others_w = device.others_w * at(device.others, hour)
        self.watts = device.idle_w + others_w + inference_j
        self.heat.second(self.watts, at(device.ambient, hour))
        self.kernel.second(self.heat.chip_c)
        if self.cell is not None:
            self.cell.second(self.watts - at(device.charger, hour))
            if self.cell.empty:
                return "flat battery"
        if self.heat.chip_c >= device.thermals.shutdown_c:
            return "heat"
        return ""


def simulate(
    name: str,
    controller: Controller,
    scenario: Scenario,
    clock: ManualClock,
    accuracy: Mapping[int, float] | None = None,
    observers: Sequence[Observer] = (),
) -> Run:
    """Govern ``scenario`` with ``controller`` to its end or the device's; deterministic.

    ``clock``: the controller's, at 0; a step a second. ``accuracy``: of a frame by its bits.
    """
    world, tally, curves = World(scenario), Tally(), Curves()
    for _ in range(round(scenario.hours * 3600.0)):
        now = clock.now()
        step = controller.step(world.instruments.sample(world.truth(now), now))
        for observe in observers:
            observe(now, step)
        chip_c = world.heat.chip_c
        note(curves, now, controller, chip_c, None if world.cell is None else world.cell.charge)
        tally.seconds += 1
        tally.changes += step.changed
        tally.peak_c = max(tally.peak_c, chip_c)
        tally.above_control_s += chip_c > scenario.control_c
        if world.kernel.state > 0:
            tally.throttled_s += 1
            if tally.throttled_from_s is None:
                tally.throttled_from_s = now
        inference_j = world.frames(controller, now, tally, accuracy)
        tally.death = world.second(now, inference_j)
        tally.joules += world.watts
        clock.advance(1.0)
        if tally.death:
            tally.died_s = tally.seconds
            break
    if world.cell is not None:
        tally.charge = world.cell.charge
    return Run(name, tally, curves, accuracy)


def note(
    curves: Curves, now: float, controller: Controller, chip_c: float | None, charge: float | None
) -> None:
    """Add a point to the curves if it is time for one."""
    if round(now) % ROW_S:
        return
    curves.hours.append(round(now / 3600.0, 4))
    curves.chip_c.append(None if chip_c is None else round(chip_c, 2))
    curves.bits.append(controller.level)
    interval = max(controller.frame_interval_s, 1.0 / SOURCE_FPS)
    curves.fps.append(0.0 if controller.paused else round(1.0 / interval, 2))
    curves.charge.append(None if charge is None else round(charge, 4))


LOG_FORMAT = "edge-app/decisions/1"


class DecisionLog:
    """The governor's decisions as JSON Lines: every one that changes something or says something
    new, and one a minute. The same bytes for the same scenario, policy and seed.

    An observer of ``simulate``; ``text`` has everything, the header first.
    """

    def __init__(self, **header: Any) -> None:
        self._lines = [_line({"log": LOG_FORMAT, **header})]

    def __call__(self, now: float, step: Any) -> None:
        if step.changed or getattr(step, "events", ()) or round(now) % 60 == 0:
            self._lines.append(_line(step.to_json()))

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
