"""Makes the sensor traces that come with the package: simulated, and they say so.

    python -m edge_app.governor.simulation.traces [DIRECTORY]

One thermal node, C dT/dt = P - (T - T_ambient)/R, in steps of a tenth of a second, and
a battery of constant capacity. The numbers are plausible for a small handheld board without a
fan; none of them was measured. What the device does is a script: a recording does not answer to
the governor that is played it.

The output is the same byte for byte on every machine: only +, -, *, / on doubles, and noise
from the integer generator of ``random`` with a fixed seed.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_app.sensors.trace import TRACE_FORMAT

MADE_BY = "edge_app.governor.simulation.traces"
ROW_S = 5
STEPS_PER_S = 10

RESISTANCE_K_PER_W = 10.0
CAPACITY_J_PER_K = 18.0
AMBIENT_C = 30.0
NOISE_C = 0.15
SENSOR_STEP_C = 0.1
PASSIVE_C = 80.0
CRITICAL_C = 95.0

BATTERY_WH = 5.0
REST_OF_DEVICE_W = 0.8
CHARGER_W = 9.0
GAUGE_STEP = 0.001


@dataclass(frozen=True)
class Phase:
    """Until ``until_s`` the chip turns ``power_w`` into heat."""

    until_s: int
    power_w: float
    other_load: float
    charger: bool = False
    sensor: str = "works"
    """``works``, ``silent`` (gives no value) or ``sentinel`` (gives absolute zero)."""


HEAT_AND_RECOVER = (
    Phase(120, 2.6, 0.05),
    Phase(760, 4.84, 0.15),
    Phase(1300, 3.5, 0.05),
    Phase(2100, 3.6, 0.08),
    Phase(2400, 3.1, 0.05, charger=True),
)
SENSOR_LOST = (
    Phase(90, 2.6, 0.05),
    Phase(150, 2.6, 0.05, sensor="silent"),
    Phase(330, 2.6, 0.05),
    Phase(380, 2.6, 0.05, sensor="sentinel"),
    Phase(600, 2.6, 0.05),
)


class Noise:
    """Roughly normal numbers: the sum of twelve uniform ones, which needs no libm."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def draw(self, deviation: float) -> float:
        return deviation * (sum(self._random.random() for _ in range(12)) - 6.0)


@dataclass
class Device:
    """State of the simulated device."""

    temperature_c: float
    energy_wh: float

    @property
    def charge(self) -> float:
        return self.energy_wh / BATTERY_WH

    def second(self, phase: Phase) -> None:
        """One second of ``phase``."""
        step = 1.0 / STEPS_PER_S
        for _ in range(STEPS_PER_S):
            lost_w = (self.temperature_c - AMBIENT_C) / RESISTANCE_K_PER_W
            self.temperature_c += (phase.power_w - lost_w) / CAPACITY_J_PER_K * step
        self.energy_wh = min(BATTERY_WH, self.energy_wh - drain_w(phase) / 3600.0)


def drain_w(phase: Phase) -> float:
    """Power that flows out of the battery; negative while it charges."""
    return phase.power_w + REST_OF_DEVICE_W - (CHARGER_W if phase.charger else 0.0)


def heat_and_recover() -> list[str]:
    """Forty minutes: heat takes the levels down, cooling brings them back, the battery runs low
    and a charger comes in time."""
    note = (
        "simulated by a first-order thermal model and a battery of constant capacity; a small "
        "board without a fan heats up, cools down, runs low on charge and is plugged in"
    )
    noise = Noise(1)
    rows = [_header(note)]
    for time, phase, device in _play(HEAT_AND_RECOVER, Device(50.0, 0.71 * BATTERY_WH)):
        rows.append(
            _line(
                {
                    "t": time,
                    "zones": {"cpu-thermal": _zone(phase, device, noise)},
                    "battery": {
                        "charge": _rounded(device.charge, GAUGE_STEP),
                        "discharging": not phase.charger,
                        "on_ac": phase.charger,
                        "power_w": _rounded(drain_w(phase), 0.01),
                    },
                    "other_load": _rounded(max(0.0, phase.other_load + noise.draw(0.01)), 0.01),
                }
            )
        )
    return rows


def sensor_lost() -> list[str]:
    """Ten minutes on external power: the thermometer falls silent, and later it lies."""
    note = (
        "simulated by a first-order thermal model; the only thermometer of a device without a "
        "battery gives no value for a minute and later absolute zero"
    )
    noise = Noise(2)
    rows = [_header(note)]
    for time, phase, device in _play(SENSOR_LOST, Device(56.0, BATTERY_WH)):
        rows.append(
            _line(
                {
                    "t": time,
                    "zones": {"cpu-thermal": _zone(phase, device, noise)},
                    "other_load": phase.other_load,
                }
            )
        )
    return rows


TRACES = {"heat-and-recover": heat_and_recover, "sensor-lost": sensor_lost}


def _play(script: tuple[Phase, ...], device: Device) -> Iterator[tuple[int, Phase, Device]]:
    """Every moment that is recorded, with the phase that is on then."""
    time = 0
    for phase in script:
        while time < phase.until_s:
            if time % ROW_S == 0:
                yield time, phase, device
            device.second(phase)
            time += 1
    yield time, script[-1], device


def _zone(phase: Phase, device: Device, noise: Noise) -> dict[str, float | None]:
    measured: float | None = _rounded(device.temperature_c + noise.draw(NOISE_C), SENSOR_STEP_C)
    if phase.sensor == "silent":
        measured = None
    elif phase.sensor == "sentinel":
        measured = -273.15
    return {"c": measured, "passive_c": PASSIVE_C, "critical_c": CRITICAL_C}


def _rounded(value: float, step: float) -> float:
    return round(round(value / step) * step, 6)


def _header(note: str) -> str:
    return _line({"trace": TRACE_FORMAT, "made_by": MADE_BY, "note": note})


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def write_traces(directory: Path) -> list[Path]:
    """Write all traces into ``directory`` and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in TRACES.items():
        path = directory / f"{name}.jsonl"
        path.write_text("\n".join(make()) + "\n", encoding="utf-8", newline="\n")
        paths.append(path)
    return paths


def main() -> None:
    shipped = Path(__file__).resolve().parent.parent.parent / "assets" / "traces"
    parser = argparse.ArgumentParser(prog="python -m edge_app.governor.simulation.traces")
    parser.add_argument("directory", nargs="?", type=Path, default=shipped, help="where to write")
    for path in write_traces(parser.parse_args().directory):
        print(path)


if __name__ == "__main__":
    main()
