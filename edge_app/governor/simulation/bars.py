"""What the governor is held to, measured on simulated devices. ``scorecard`` prints it.

Every bar is a figure of this run: the baselines and the faults run in the same plants as ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edge_app.clock import ManualClock
from edge_app.governor import load_policy
from edge_app.governor.caps import thermal_limits
from edge_app.governor.controller import Governor
from edge_app.governor.decision import Decision
from edge_app.governor.energy import Profile
from edge_app.governor.ladder import build_ladder
from edge_app.governor.simulation.baselines import Step, baselines
from edge_app.governor.simulation.devices import DEVICES, Device
from edge_app.governor.simulation.instruments import Fault
from edge_app.governor.simulation.noise import Noise
from edge_app.governor.simulation.plant import Thermals
from edge_app.governor.simulation.run import Run, Scenario, simulate
from edge_app.policy.model import Policy
from edge_app.sensors import Zone, absent

FPS = 10.0
HOT: tuple[tuple[float, float], ...] = ((0.0, 25.0), (2.0, 35.0))
SOAK_HOURS = 2.0
MOST_CHANGES_PER_HOUR = 25.0
OVERSHOOT_C = 1.0
CALMER = 5.0
"""How many times as often a baseline that keeps as cool must change."""
CRITICAL_WITHIN_S = 2
LOST_WITHIN_S = 11
DISTRUSTED_WITHIN_S = 240
HEALTHY_RUNS = 40
FAULT_AT_S = 900


@dataclass(frozen=True)
class Bar:
    """One line of the scorecard."""

    topic: str
    case: str
    measured: str
    bar: str
    passed: bool


def policy_at(fps: float = FPS, *overrides: str) -> Policy:
    """The default policy at a pinned frame rate."""
    return load_policy(None, overrides=[f"frame.target_fps={fps:g}", *overrides])


DISBELIEF = ("distrusted", "sensor_lost")
"""Kinds of the events with which a thermometer is no longer obeyed."""


@dataclass
class Watch:
    """An observer: when, from ``since_s`` on, the level was first raised, and when a thermometer
    was first disbelieved."""

    since_s: float = 0.0
    raised_s: float | None = None
    disbelieved_s: float | None = None
    rung: int = 0

    def __call__(self, now: float, step: Step) -> None:
        assert isinstance(step, Decision)
        if now >= self.since_s:
            if self.raised_s is None and step.rung > self.rung:
                self.raised_s = now
            if self.disbelieved_s is None and any(event.kind in DISBELIEF for event in step.events):
                self.disbelieved_s = now
        self.rung = step.rung


@dataclass
class Changes:
    """An observer: how often the rung has changed in the first hour."""

    first_hour: int = 0

    def __call__(self, now: float, step: Step) -> None:
        self.first_hour += step.changed and now < 3600.0


@dataclass
class Reaction:
    """An observer: when, from ``since_s`` on, at most ``rung`` first ran."""

    rung: int
    since_s: float
    reached_s: float | None = None
    before: int = 0

    def __call__(self, now: float, step: Step) -> None:
        if now < self.since_s:
            self.before = step.rung
        elif self.reached_s is None and step.rung <= self.rung:
            self.reached_s = now


def govern(
    scenario: Scenario,
    policy: Policy,
    *observers: Watch | Reaction | Changes,
    profile: Profile | None = None,
) -> Run:
    """``scenario`` under our governor."""
    device, clock = scenario.device, ManualClock()
    governor = Governor(policy, device.levels, profile or device.profile(), clock)
    return simulate("governor", governor, scenario, clock, None, observers)


def control_of(device: Device, policy: Policy) -> float:
    """The temperature that the policy aims at on this device."""
    zone = Zone("", absent(""), device.passive_c, device.critical_c)
    return thermal_limits(zone, policy.thermal).control_c


def coolest_c(device: Device, policy: Policy) -> float:
    """Where the chip would settle at the lowest rung in the greatest heat: the closed form of two
    resistances in a row."""
    lowest = build_ladder(device.levels, policy).rungs[0]
    others = max(share for _, share in device.others)
    watts = device.profile().watts(lowest.bits, lowest.fps) + device.others_w * others
    resistance = device.thermals.chip_k_per_w + device.thermals.case_k_per_w
    return max(celsius for _, celsius in device.ambient) + watts * resistance


def soak_plants() -> list[Device]:
    """Boards that differ in how well they are cooled and in what they draw."""
    board = DEVICES["pi5-passive"]

    def plant(name: str, case_k_per_w: float, active_w: float = board.active_w) -> Device:
        thermals = replace(board.thermals, case_k_per_w=case_k_per_w)
        return replace(board, name=name, thermals=thermals, active_w=active_w, ambient=HOT)

    return [
        plant("4 K/W", 4.0),
        plant("6 K/W", 6.0),
        plant("9 K/W (Pi 5, bare)", 9.0),
        plant("12 K/W", 12.0),
        plant("9 K/W, 10 W more", 9.0, 10.0),
        plant("1 K/W (fan)", 1.0),
    ]


def hot_soak() -> Iterator[Bar]:
    """Two hours from 25 to 35 deg C: at ten frames a second, at which a board's CPU has time to
    spare at every level, and at the default policy's thirty, at which it has none from 4 bits on."""
    for policy in (policy_at(), load_policy(None)):
        for device in soak_plants():
            yield _soak(device, policy)


def _soak(device: Device, policy: Policy) -> Bar:
    control_c = control_of(device, policy)
    scenario = Scenario(device, SOAK_HOURS, seed=7, control_c=control_c)
    counted = Changes()
    ours = govern(scenario, policy, counted).tally
    changes = max(ours.changes / SOAK_HOURS, counted.first_hour)
    feasible = coolest_c(device, policy) <= control_c
    limit = f"<= {MOST_CHANGES_PER_HOUR:g}/h"
    if feasible:
        limit += f", <= {control_c + OVERSHOOT_C:g} °C, no throttling"
    else:
        limit += " (no rung is cool enough)"
    cool = ours.peak_c <= control_c + OVERSHOOT_C and ours.throttled_s == 0
    return Bar(
        "hot soak",
        f"{policy.frame.target_fps:g} frames/s, {device.name}",
        f"{ours.changes / SOAK_HOURS:.1f}/h, {counted.first_hour} in the first, "
        f"{ours.peak_c:.1f} °C, {ours.throttled_s / 60:.1f} min throttled, "
        f"{ours.bits / ours.frames:.2f} bits, {ours.frames / ours.seconds:.1f} frames/s",
        limit,
        changes <= MOST_CHANGES_PER_HOUR and (cool or not feasible),
    )


def calmer_than_baselines() -> Iterator[Bar]:
    """The same on a bare Pi 5, with all baselines."""
    policy = policy_at()
    device = replace(DEVICES["pi5-passive"], ambient=HOT)
    control_c = control_of(device, policy)
    scenario = Scenario(device, SOAK_HOURS, seed=7, control_c=control_c)
    ours = govern(scenario, policy).tally
    for name, baseline in baselines(device.levels, FPS, control_c).items():
        theirs = simulate(name, baseline, scenario, ManualClock()).tally
        calmer = theirs.changes >= CALMER * ours.changes
        cooler = theirs.peak_c > control_c + OVERSHOOT_C
        wasteful = theirs.bits * ours.frames < ours.bits * theirs.frames
        yield Bar(
            "against baselines",
            name,
            f"{theirs.changes / SOAK_HOURS:.1f}/h, {theirs.peak_c:.1f} °C, "
            f"{theirs.throttled_s / 60:.1f} min throttled, {theirs.bits / theirs.frames:.2f} bits",
            f"changes {CALMER:g} times as often, or is hotter, or runs lower levels than ours",
            calmer or cooler or wasteful,
        )


def reactions() -> Iterator[Bar]:
    """Seconds from a sudden reading to the rung that it calls for."""
    policy = policy_at()
    device = DEVICES["pi5-fan"]
    ladder = Governor(policy, device.levels, device.profile(), ManualClock()).ladder
    failsafe = ladder.at_most(policy.failsafe.lost_thermal_sensor_bits)
    critical_c = policy.thermal.critical_c
    cases = (
        ("critical temperature", Fault("stuck", FAULT_AT_S, value=critical_c + 1.0), 0),
        ("lost sensor: no value", Fault("missing", FAULT_AT_S), failsafe),
        ("lost sensor: -273.15 °C", Fault("sentinel", FAULT_AT_S), failsafe),
        ("lost sensor: units mixed up", Fault("unit", FAULT_AT_S), failsafe),
    )
    for case, fault, rung in cases:
        limit = CRITICAL_WITHIN_S if rung == 0 else LOST_WITHIN_S
        reaction = Reaction(rung, FAULT_AT_S)
        govern(Scenario(device, 0.3, faults=(fault,)), policy, reaction)
        took = None if reaction.reached_s is None else reaction.reached_s - FAULT_AT_S
        where = "lowest rung" if rung == 0 else "fail-safe"
        yield Bar(
            "reaction",
            case,
            "never" if took is None else f"{where} after {took:.0f} s",
            f"<= {limit} s, from the highest rung",
            took is not None and took <= limit and reaction.before == ladder.top,
        )


def lying_thermometer() -> Iterator[Bar]:
    """Stuck cold on boards that do not report their throttling: frozen while they warm up, and at
    55 deg C when they are hot.

    The time counts from the first thing that comes of it, a raise or the kernel's throttling:
    until then a constant temperature may be the true one.
    """
    policy = policy_at()
    faults = {
        "frozen while warming up": Fault("stuck", 120),
        "at 55 °C from half an hour on": Fault("stuck", 1800, value=55.0),
    }
    for device in soak_plants()[2:5]:
        device = replace(device, tells_throttling=False)
        for case, fault in faults.items():
            watch = Watch(fault.start_s)
            run = govern(Scenario(device, SOAK_HOURS, seed=7, faults=(fault,)), policy, watch)
            found, tally = watch.disbelieved_s, run.tally
            began = [time for time in (watch.raised_s, tally.throttled_from_s) if time is not None]
            took = None if found is None else max(0.0, found - min(began, default=found))
            yield Bar(
                "stuck cold",
                f"{case}, {device.name}",
                (
                    "never distrusted"
                    if found is None
                    else f"distrusted after {took:.0f} s ({found - fault.start_s:.0f} s of fault)"
                )
                + f", {tally.peak_c:.1f} °C, {tally.throttled_s / 60:.1f} min throttled",
                f"<= {DISTRUSTED_WITHIN_S} s",
                took is not None and took <= DISTRUSTED_WITHIN_S,
            )


def healthy_device(noise: Noise) -> Device:
    """A board that works, from bare to well cooled, cold to hot, quiet to busy."""
    start = noise.uniform(-5.0, 32.0)
    busy = noise.uniform(0.0, 0.9)
    begin = noise.uniform(0.2, 1.4)
    quiet = noise.uniform(0.0, 0.15)
    return Device(
        "healthy",
        "randomised",
        frame_s=noise.uniform(0.03, 0.09),
        idle_w=noise.uniform(1.0, 3.0),
        active_w=noise.uniform(2.0, 7.0),
        thermals=Thermals(
            chip_j_per_k=noise.uniform(2.0, 12.0),
            chip_k_per_w=noise.uniform(1.0, 4.0),
            case_j_per_k=noise.uniform(30.0, 200.0),
            case_k_per_w=noise.uniform(2.0, 10.0),
        ),
        ambient=((0.0, start), (2.0, start + noise.uniform(-5.0, 12.0))),
        others=((begin, quiet), (begin + 0.02, busy), (begin + 0.4, busy), (begin + 0.42, quiet)),
        noise_c=noise.uniform(0.0, 0.8),
        step_c=(0.1, 0.5, 1.0)[noise.below(3)],
        tells_throttling=noise.chance(2),
    )


def false_alarms(runs: int = HEALTHY_RUNS) -> Iterator[Bar]:
    """Healthy boards of all kinds: no thermometer may be called a liar."""
    policy, alarmed, hottest = policy_at(), 0, 0
    for seed in range(runs):
        device = healthy_device(Noise(seed))
        watch = Watch()
        run = govern(Scenario(device, SOAK_HOURS, seed=seed), policy, watch)
        alarmed += watch.disbelieved_s is not None
        hottest += run.tally.throttled_s > 0
    yield Bar(
        "false alarms",
        f"{runs} healthy runs of {SOAK_HOURS:g} h, {hottest} of them throttled",
        f"{alarmed} distrusted",
        "0",
        alarmed == 0,
    )
