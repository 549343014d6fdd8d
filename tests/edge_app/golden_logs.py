"""The golden decision logs: what they are, and how to make them anew.

    .venv/bin/python tests/edge_app/golden_logs.py

Each is every decision that changed or said something, and one a minute, of one simulated day or
one recording under one policy; the same bytes for the same scenario, policy and seed. A difference
is a change of the governor's behaviour: make them anew, and read the difference line by line.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_app.clock import ManualClock
from edge_app.governor import Governor, load_policy
from edge_app.governor.simulation.devices import DEVICES
from edge_app.governor.simulation.instruments import Fault
from edge_app.governor.simulation.plant import Pack
from edge_app.governor.simulation.replay import replay
from edge_app.governor.simulation.run import DecisionLog, Scenario, simulate
from edge_app.recordings import find_trace, open_recording

DIRECTORY = Path(__file__).parent / "golden"
TEN_FPS = "frame.target_fps=10"


@dataclass(frozen=True)
class Day:
    """What one log tells of. ``trace``: a recording instead of the device's physics."""

    device: str = "pi5-passive"
    hours: float = 1.0
    preset: str = "balanced"
    overrides: Sequence[str] = (TEN_FPS,)
    faults: tuple[Fault, ...] = ()
    trace: str = ""
    pack: Pack | None = None
    tells_throttling: bool = True
    seed: int = 1


DAYS = {
    "hot-soak": Day(hours=2.0),
    "hot-soak-30-fps": Day(overrides=()),
    "heatsink-fastest": Day("pi5-heatsink", preset="fastest"),
    "sealed-box-coolest": Day("sealed-box", preset="coolest"),
    "battery-tiers": Day("handheld-battery", pack=Pack(3.0), overrides=()),
    "battery-until": Day(
        "handheld-battery",
        2.0,
        overrides=(TEN_FPS, "battery.until=10:00:00"),
        pack=Pack(5.0, tells_power=False),
    ),
    "battery-cannot-last": Day(
        "handheld-battery", 0.5, overrides=("battery.until=18:00:00",), pack=Pack(2.0)
    ),
    "solar-longest": Day("solar-camera", 3.0, preset="longest", overrides=()),
    "sensor-missing": Day(hours=0.5, faults=(Fault("missing", 600, 900),)),
    "sensor-stuck-cold": Day(
        hours=1.2, faults=(Fault("stuck", 120, 3000),), tells_throttling=False
    ),
    "sensor-spikes-and-drift": Day(
        faults=(Fault("spike", 300, 1500), Fault("drift", 1500, value=20.0))
    ),
    "recorded-heat-and-recover": Day(trace="heat-and-recover", overrides=()),
}


def log_of(name: str) -> str:
    """The decision log of one day."""
    day = DAYS[name]
    policy = load_policy(None, day.preset, list(day.overrides))
    device = replace(DEVICES[day.device], tells_throttling=day.tells_throttling)
    device = replace(device, pack=day.pack or device.pack)
    clock = ManualClock()
    governor = Governor(policy, device.levels, device.profile(), clock)
    log = DecisionLog(day=name, policy=policy.name, seed=day.seed)
    if day.trace:
        recording = open_recording(find_trace(day.trace), clock)
        profile, obeys = device.profile(), governor.obeys
        replay(name, governor, recording, clock, profile, obeys, 78.0, observers=[log])
    else:
        scenario = Scenario(device, day.hours, day.seed, day.faults)
        simulate(name, governor, scenario, clock, observers=[log])
    return log.text


def path_of(name: str) -> Path:
    """Where a log is kept."""
    return DIRECTORY / f"{name}.jsonl.gz"


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for stale in set(DIRECTORY.glob("*.jsonl.gz")) - {path_of(name) for name in DAYS}:
        stale.unlink()
    for name in DAYS:
        # Neither time nor name in the header: the same log is the same file.
        path_of(name).write_bytes(gzip.compress(log_of(name).encode(), mtime=0))
        print(path_of(name), path_of(name).stat().st_size)


if __name__ == "__main__":
    main()
