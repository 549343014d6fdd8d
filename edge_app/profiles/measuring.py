"""`edge-app profile`: what each level of a model costs on this machine, in seconds and in joules.

The governor predicts with these numbers: which level keeps the deadline, how much slower frames run
than they should, how long the battery lasts. Times are of runs one after the other; joules are what
a run needs above idling, measured where RAPL, a current monitor or the battery can tell.
"""

from __future__ import annotations

import hashlib
import logging
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_app.clock import Clock
from edge_app.profiles.store import (
    FORMAT,
    Conditions,
    LevelProfile,
    StoredProfile,
    default_directory,
    load,
)
from edge_app.sensors import Sample, SysfsSensors
from edge_app.sensors.energy import EnergyMeter
from edge_app.sensors.root import Root, SysRoot

if TYPE_CHECKING:
    from edge_app.governor.energy import Profile
    from edge_app.pipeline import Model
    from edge_app.policy.model import Energy
    from native_ops import Program

SLICE_S = 1.0
"""How often the energy is read: power is integrated from reading to reading."""
LEAST_RUNS = 20
BUSY_LOAD = 0.10
"""Share of all CPU time used by others from which a measurement is not to be trusted."""
LARGE_SPREAD = 0.20
USELESS_SPREAD = 1.0
"""Times that spread by more tell of the other programs, not of the level."""
BATTERY_LEAST_S = 60.0
"""Fuel gauges average: a shorter measurement with one tells of what ran before."""
PACKAGE = "CPU package"
BATTERY = "battery"
QUICK_RUNS = 5
QUICK_BUDGET_S = 0.05

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Block:
    """One stretch of measuring: seconds of each run, how long it took, what it used in joules
    (None if nothing can tell)."""

    times: tuple[float, ...]
    seconds: float
    joules: float | None


class Machine:
    """The machine below ``root``: its energy, and what disturbs a measurement on it."""

    def __init__(self, root: Root, clock: Clock) -> None:
        self._clock = clock
        self._sensors = SysfsSensors(root, clock)
        self._meter = EnergyMeter(root, clock)
        self._samples: list[Sample] = []
        self._sensors.sample()

    @property
    def energy_source(self) -> str:
        """What measured energy; "" for nothing."""
        return self._meter.read().source

    def disturbances(self) -> list[str]:
        """What was wrong while blocks were measured."""
        return disturbances(self._samples)

    def block(self, call: Callable[[], object] | None, seconds: float) -> Block:
        """Call again and again for ``seconds`` (and some times at least), or idle so long."""
        times: list[float] = []
        self._sensors.sample()
        before = after = self._meter.read().joules
        started = self._clock.now()
        while True:
            left = seconds - (self._clock.now() - started)
            if left <= 0.0 and (call is None or len(times) >= LEAST_RUNS):
                break
            if call is None:
                self._clock.sleep(min(SLICE_S, left))
            else:
                _call(call, times, min(SLICE_S, left))
            after = self._meter.read().joules
        taken = self._clock.now() - started
        self._samples.append(self._sensors.sample())
        used = None if before is None or after is None else after - before
        return Block(tuple(times), taken, used)


def _call(call: Callable[[], object], times: list[float], seconds: float) -> None:
    """Call for ``seconds``, once at least, and note how long each took."""
    begun = time.perf_counter()
    end = begun + seconds
    while True:
        call()
        now = time.perf_counter()
        times.append(now - begun)
        if now >= end:
            return
        begun = time.perf_counter()


def disturbances(samples: Sequence[Sample]) -> list[str]:
    """What makes a measurement worth less, by samples of which each tells of the time before it."""

    def values(name: str) -> list[float]:
        readings = [getattr(sample, name) for sample in samples]
        return [entry.value for entry in readings if entry.ok and entry.value is not None]

    problems = []
    others, limits = max(values("other_load"), default=0.0), values("cpu_limit")
    if others > BUSY_LOAD:
        problems.append(f"other programs used up to {others:.0%} of the CPUs")
    if 1.0 in values("throttled"):
        problems.append("the CPU was throttled")
    if limits and min(limits) < 1.0:
        problems.append(f"the CPU was limited to {min(limits):.0%} of its highest frequency")
    if 1.0 in values("under_voltage"):
        problems.append("the power supply was too weak")
    return problems


def level_profile(bits: int, block: Block, idle_w: float | None) -> LevelProfile:
    """What ``block`` says of one level, on a device that idles at ``idle_w``.

    ``joules`` is None as well where the runs do not stand out from idling: a source that does not
    see them, or noise.
    """
    times = sorted(block.times)
    median = statistics.median(times)
    low, high = percentile(times, 0.25), percentile(times, 0.75)
    joules = None
    if block.joules is not None and idle_w is not None:
        above = (block.joules - idle_w * block.seconds) / len(times)
        joules = above if above > 0.0 else None
    return LevelProfile(
        bits=bits,
        runs=len(times),
        median_s=median,
        p90_s=percentile(times, 0.90),
        spread=(high - low) / median,
        joules=joules,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of ``ordered`` that ``share`` of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def measure(
    program: Program, threads: int, memory: str, seconds: float, root: Root, clock: Clock
) -> StoredProfile:
    """Run every level of ``program`` for ``seconds``, and idle for as long before.

    ``threads`` and ``memory`` are what it was opened with.
    """
    image = ramp(program)
    for bits in program.levels:
        program.run(bits, image)  # The first run prepares the weights.
    machine = Machine(root, clock)
    idle = machine.block(None, seconds)
    idle_w = None if idle.joules is None else idle.joules / idle.seconds
    levels = []
    for bits in program.levels:
        block = machine.block(lambda bits=bits: program.run(bits, image), seconds)  # type: ignore[misc]
        levels.append(level_profile(bits, block, idle_w))
    source, warnings = machine.energy_source, machine.disturbances()
    spread = max(level.spread for level in levels)
    if spread > LARGE_SPREAD:
        warnings.append(f"the times of a level spread by up to {spread:.0%} of their median")
    if source == BATTERY and seconds < BATTERY_LEAST_S:
        warnings.append(f"a battery tells its power slowly: take --seconds {BATTERY_LEAST_S:g}")
    return StoredProfile(
        format=FORMAT,
        conditions=conditions_of(program, threads, memory, root),
        model=Path(program.path).stem,
        levels=tuple(levels),
        idle_w=idle_w,
        energy_source=source,
        whole_device=bool(source) and source != PACKAGE,
        governor=frequency_governor(root),
        versions=versions(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=tuple(warnings),
    )


def profile_for(
    program: Program,
    threads: int,
    memory: str,
    energy: Energy,
    directory: Path | None = None,
    root: Root | None = None,
    first: int | None = None,
) -> Profile:
    """What the levels of ``program`` cost here: as stored, or measured quickly and by the stated
    model of ``energy``. A stored profile that does not fit any more is named in a warning; they
    are all of the CPU, so that a program on another device is always measured.

    ``first``: measure this level only and estimate the others, which prepares none of them.
    """
    from edge_app.governor.energy import Profile

    root = SysRoot() if root is None else root
    directory = default_directory() if directory is None else directory
    stored = None
    if program.device == "cpu":
        stored = load(conditions_of(program, threads, memory, root), directory)
    if stored is not None:
        outdated = _outdated(stored, program, root)
        if not outdated:
            return to_profile(stored, energy)
        log.warning("the profile of %s is not used: %s", stored.model, outdated)
    macs = _macs(program)
    if first is None or program.device != "cpu" or not macs:
        return Profile.from_seconds(quick_times(program), energy.idle_w, energy.active_w)
    measured = quick_times(program, (first,))[first]
    seconds = {bits: measured * count / macs[first] for bits, count in macs.items()}
    profile = Profile.from_seconds(seconds, energy.idle_w, energy.active_w)
    return replace(profile, estimated=frozenset(macs) - {first})


def _macs(program: Program) -> dict[int, float]:
    """Multiplications of each level by the model's metadata, to which its time is about
    proportional; empty unless they are there for all."""
    about = program.metadata["levels"]
    macs = {bits: about[str(bits)].get("macs") for bits in program.levels}
    if not all(isinstance(count, int | float) and count > 0 for count in macs.values()):
        return {}
    return {bits: float(count) for bits, count in macs.items()}


def _outdated(stored: StoredProfile, program: Program, root: Root) -> str:
    """Why a stored profile says nothing of now; "" if it does."""
    again = f"run edge-app profile {stored.model} again"
    if tuple(level.bits for level in stored.levels) != program.levels:
        return f"it has other levels than the model; {again}"
    if stored.versions != versions():
        return f"it was measured by another version of this program; {again}"
    spread = max(level.spread for level in stored.levels)
    if spread > USELESS_SPREAD:
        return f"its times spread by {spread:.0%}, the machine was busy; {again}"
    governor = frequency_governor(root)
    if stored.governor != governor:
        return f"the CPU's frequency governor was {stored.governor} and is {governor}; {again}"
    return ""


def to_profile(stored: StoredProfile, energy: Energy) -> Profile:
    """What the governor takes: measured joules if there are any for every level, else by the
    stated model; the device's idle power is only taken from what measures all of the device."""
    from edge_app.governor.energy import LevelCost, Profile

    levels = {}
    for level in stored.levels:
        if level.joules is None:
            seconds = {entry.bits: entry.median_s for entry in stored.levels}
            return Profile.from_seconds(seconds, energy.idle_w, energy.active_w)
        levels[level.bits] = LevelCost(level.median_s, level.joules)
    whole = stored.whole_device and stored.idle_w is not None
    idle_w = stored.idle_w if whole and stored.idle_w is not None else energy.idle_w
    return Profile(levels, idle_w, f"measured ({stored.energy_source})")


def quick_times(model: Model, levels: Sequence[int] | None = None) -> dict[int, float]:
    """Median seconds of a run at each of ``levels``, or at all: at most five runs and 50 ms a level,
    one to warm up."""
    image = ramp(model)
    seconds: dict[int, float] = {}
    for bits in model.levels if levels is None else levels:
        model.run(bits, image)
        times: list[float] = []
        while len(times) < QUICK_RUNS and (not times or sum(times) < QUICK_BUDGET_S):
            started = time.perf_counter()
            model.run(bits, image)
            times.append(time.perf_counter() - started)
        seconds[bits] = statistics.median(times)
    return seconds


def ramp(model: Model) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An image: the kernels' time does not depend on the pixels, so a ramp will do."""
    size = int(np.prod(model.input_shape))
    return (np.arange(size) % 251).astype(np.uint8).reshape(model.input_shape)


def conditions_of(program: Program, threads: int, memory: str, root: Root) -> Conditions:
    """What a profile of ``program`` holds for on the machine below ``root``."""
    import native_ops

    return Conditions(
        model_sha256=hashlib.sha256(Path(program.path).read_bytes()).hexdigest(),
        cpu=cpu_id(root),
        threads=threads,
        memory=memory,
        isa=native_ops.isa_selected(),
    )


def cpu_id(root: Root) -> str:
    """What this machine calls its processor, or its board, and how many CPUs it has."""
    entries: dict[str, str] = {}
    for line in (root.read("proc/cpuinfo").text or "").splitlines():
        key, _, value = line.partition(":")
        entries.setdefault(key.strip(), value.strip())
    part = " ".join(entries.get(f"CPU {key}", "") for key in ("implementer", "part")).strip()
    board = root.read("proc/device-tree/model").label
    name = entries.get("model name") or entries.get("Model") or board or part or "unknown CPU"
    cpus = sum(entry[3:].isdigit() for entry in root.entries("sys/devices/system/cpu"))
    return f"{name}, {cpus} CPUs"


def frequency_governor(root: Root) -> str:
    """The cpufreq governor (Documentation/admin-guide/pm/cpufreq.rst), all of them where clusters
    differ; "none" where the kernel does not set the frequency."""
    base = "sys/devices/system/cpu/cpufreq"
    found = {
        root.read(f"{base}/{entry}/scaling_governor").label
        for entry in root.entries(base)
        if entry.startswith("policy")
    }
    return " + ".join(sorted(found - {""})) or "none"


def versions() -> dict[str, str]:
    """Of what decides how fast a level is."""
    import native_ops

    try:
        own = metadata.version("edge-app")
    except metadata.PackageNotFoundError:
        own = "unknown"
    details = native_ops.version_info()
    return {"edge-app": own, "executorch": details["executorch"], "compiler": details["compiler"]}
