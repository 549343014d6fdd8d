"""`edge-app sensors replay`: a recording through the same readers, and the same governor."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_app.clock import ManualClock, RealClock
from edge_app.errors import EXIT_OK, EXIT_USAGE, AppError
from edge_app.recordings import RecordedSource, find_trace, open_recording, open_root

if TYPE_CHECKING:
    from edge_app.clock import Clock
    from edge_app.governor import Governor
    from edge_app.sensors import Quality, Reading, Sample, SensorSource

SCALARS = (
    "throttled",
    "under_voltage",
    "cpu_limit",
    "cpu_frequency",
    "other_load",
    "cpu_pressure",
    "power",
)
DEFAULT_MODEL = "digits"


@dataclass(frozen=True)
class ReplayOptions:
    """What `edge-app sensors replay` was asked for; the names are those of its options."""

    recording: str | None = None
    sysroot: Path | None = None
    policy: Path | None = None
    preset: str | None = None
    overrides: tuple[str, ...] = ()
    model: str | None = None
    frame_ms: float = 10.0
    interval: float = 1.0
    speed: float | None = None


def replay(options: ReplayOptions, pace: Clock | None = None) -> int:
    """Print a recording's samples as JSON lines and, with a policy, what the governor decides.

    Time is virtual: one sample each ``interval`` seconds of the recording, whatever the clock of
    this machine does, so that the output is the same from run to run. ``speed`` only waits, by
    the clock ``pace``.
    """
    clock = ManualClock()
    source = _source(options, clock)
    governor = _governor(options, clock)
    if pace is None and options.speed is not None:
        pace = RealClock(options.speed)
    count = 0
    while (time := count * options.interval) <= source.seconds:
        clock.advance(time - clock.now())
        if pace is not None:
            pace.sleep(time - pace.now())
        sample = source.sample()
        lines = [{"sample": sample_json(sample)}]
        if governor is not None:
            lines.append({"decision": governor.step(sample).to_json()})
        for line in lines:
            print(json.dumps(line, allow_nan=False, separators=(",", ":")))
        if pace is not None:
            sys.stdout.flush()
        count += 1
    return EXIT_OK


class _Still:
    """A copy of a machine's files, which do not change: a recording of one moment."""

    seconds = 0.0
    complete = True

    def __init__(self, sensors: SensorSource) -> None:
        self.sample = sensors.sample
        self.describe = sensors.describe


def _source(options: ReplayOptions, clock: ManualClock) -> RecordedSource:
    if (options.recording is None) == (options.sysroot is None):
        raise AppError("give either a RECORDING or --sysroot", EXIT_USAGE)
    if options.sysroot is not None and not options.sysroot.is_file():
        from edge_app.sensors import SysfsSensors

        return _Still(SysfsSensors(open_root(options.sysroot, clock), clock))
    path = options.sysroot or find_trace(options.recording or "", "")
    source = open_recording(path, clock)
    if not source.complete:
        print(f"{path}: cut off; it plays as far as it goes", file=sys.stderr)
    return source


def _governor(options: ReplayOptions, clock: ManualClock) -> Governor | None:
    """The governor for a policy, or None if none was asked for."""
    if options.policy is None and options.preset is None and not options.overrides:
        if options.model is not None:
            raise AppError("--model needs --policy, --preset or --set", EXIT_USAGE)
        return None
    from edge_app.governor import Governor, load_policy
    from edge_app.models import open_model

    policy = load_policy(options.policy, options.preset or "balanced", options.overrides)
    with open_model(options.model or DEFAULT_MODEL) as model:
        levels = model.levels
    # How long a frame takes on the recorded machine is not in the recording. What this machine
    # takes would be another answer each time.
    slowest = options.frame_ms * 1e-3
    seconds = {bits: slowest * bits / max(levels) for bits in levels}
    return Governor(policy, levels, seconds, clock)


def sample_json(sample: Sample) -> dict[str, Any]:
    """A sample as an object with keys in a fixed order; what is absent is left out."""
    battery = sample.battery
    row: dict[str, Any] = {"t": round(sample.time, 3)}
    if sample.wall is not None:
        row["wall"] = sample.wall.isoformat(timespec="seconds")
    row["zones"] = {
        zone.name: {
            **_reading(zone.reading),
            "passive_c": zone.passive_c,
            "critical_c": zone.critical_c,
        }
        for zone in sample.zones
    }
    if battery.present:
        row["battery"] = {
            "charge": _reading(battery.charge),
            "discharging": battery.discharging,
            "energy_j": _reading(battery.energy),
            "full_j": None if battery.full_j is None else round(battery.full_j, 1),
            "power_w": _reading(battery.power),
        }
    if battery.on_ac is not None:
        row["on_ac"] = battery.on_ac
    for name in SCALARS:
        reading = getattr(sample, name)
        if not _absent(reading.quality):
            row[name] = _reading(reading)
    return row


def _reading(reading: Reading) -> dict[str, Any]:
    value = reading.value
    # A file may hold a number that JSON has no word for; its quality then says what it is worth.
    number = None if value is None or not math.isfinite(value) else round(value, 4)
    return {"value": number, "quality": reading.quality.value}


def _absent(quality: Quality) -> bool:
    return quality.value == "absent"
