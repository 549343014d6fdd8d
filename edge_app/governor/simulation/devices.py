"""Simulated devices by name.

None of these numbers was measured. They are chosen so that a device of that kind behaves as its
owners know it: a bare Raspberry Pi 5 cannot keep up its highest level for an hour, one with a fan
can, a sealed box in the sun cannot even at the lowest.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.governor.energy import LevelCost, Profile
from edge_app.governor.simulation.plant import Pack, Thermals
from edge_app.governor.simulation.plant import Profile as Course

LEVEL_SHARES: Mapping[int, float] = {2: 0.25, 4: 0.5, 6: 0.75, 8: 1.0}
"""A level's work as a share of that of 8 bits: as many branches, as much work."""
INDOORS: Course = ((0.0, 25.0), (2.0, 35.0))


@dataclass(frozen=True)
class Device:
    """What is simulated under a name.

    ``frame_s``: seconds of a frame at 8 bits on the undisturbed device. ``idle_w`` without
    inference, ``active_w`` on top of that while a frame is computed, both of the whole device;
    ``others_w`` on top of that while other programs use all CPUs. ``ambient``, ``charger`` (watts
    into the device) and ``others`` (share of CPU time of other programs): courses over hours.
    ``noise_c`` and ``step_c`` of its thermometer; ``passive_c``/``critical_c`` as its zone
    reports them; ``tells_throttling``: whether it reports a lowered clock.
    """

    name: str
    what: str
    frame_s: float
    idle_w: float
    active_w: float
    thermals: Thermals = Thermals()
    others_w: float = 1.0
    ambient: Course = INDOORS
    others: Course = ((0.0, 0.05),)
    charger: Course = ((0.0, 0.0),)
    pack: Pack | None = None
    start_charge: float = 1.0
    start_hour: int = 8
    noise_c: float = 0.4
    step_c: float = 0.5
    passive_c: float | None = None
    critical_c: float | None = 110.0
    tells_throttling: bool = True
    shares: Mapping[int, float] = field(default_factory=lambda: dict(LEVEL_SHARES))

    @property
    def levels(self) -> tuple[int, ...]:
        return tuple(sorted(self.shares))

    def profile(self, error: float = 0.0) -> Profile:
        """Seconds and joules of each level. ``error``: by how much of itself every power in it
        is wrong, for a governor that knows the device badly."""
        wrong = 1.0 + error
        costs = {
            bits: LevelCost(self.frame_s * share, self.frame_s * share * self.active_w * wrong)
            for bits, share in self.shares.items()
        }
        return Profile(costs, self.idle_w * wrong, f"simulated {self.name}")


DEVICES = {
    device.name: device
    for device in (
        Device(
            "pi5-passive",
            "Raspberry Pi 5 without heatsink, on mains power",
            frame_s=0.080,
            idle_w=2.2,
            active_w=5.5,
        ),
        Device(
            "pi5-heatsink",
            "Raspberry Pi 5 with a small heatsink, on mains power",
            frame_s=0.080,
            idle_w=2.2,
            active_w=5.5,
            thermals=Thermals(case_j_per_k=90.0, case_k_per_w=6.5),
        ),
        Device(
            "pi5-fan",
            "Raspberry Pi 5 with the active cooler, on mains power",
            frame_s=0.080,
            idle_w=2.4,
            active_w=5.5,
            thermals=Thermals(chip_k_per_w=2.0, case_j_per_k=90.0, case_k_per_w=2.0),
        ),
        Device(
            "pi4-passive",
            "Raspberry Pi 4 in a plastic case, on mains power",
            frame_s=0.160,
            idle_w=2.4,
            active_w=3.2,
            thermals=Thermals(case_j_per_k=70.0, case_k_per_w=8.0, throttle_c=80.0),
            ambient=((0.0, 22.0), (3.0, 32.0)),
        ),
        Device(
            "handheld-battery",
            "handheld camera on one lithium-ion cell of 12 Wh",
            frame_s=0.090,
            idle_w=1.0,
            active_w=2.6,
            thermals=Thermals(case_j_per_k=120.0, case_k_per_w=8.0),
            pack=Pack(12.0),
            passive_c=85.0,
            ambient=((0.0, 22.0), (4.0, 28.0)),
        ),
        Device(
            "solar-camera",
            "camera on a pole with a small panel and 20 Wh, which only tells its charge",
            frame_s=0.120,
            idle_w=0.7,
            active_w=2.2,
            thermals=Thermals(case_j_per_k=250.0, case_k_per_w=9.0),
            pack=Pack(20.0, tells_power=False, tells_energy=True),
            start_charge=0.6,
            start_hour=6,
            ambient=((0.0, 14.0), (3.0, 20.0), (8.0, 33.0), (12.0, 27.0), (16.0, 18.0)),
            charger=((0.0, 0.0), (2.0, 0.6), (6.0, 3.2), (10.0, 0.8), (12.0, 0.0)),
            tells_throttling=False,
        ),
        Device(
            "jetson-orin-nano",
            "Jetson Orin Nano at 7 W with its fan, on mains power",
            frame_s=0.050,
            idle_w=3.4,
            active_w=4.0,
            thermals=Thermals(
                chip_j_per_k=8.0, chip_k_per_w=1.5, case_j_per_k=200.0, case_k_per_w=2.5
            ),
            passive_c=97.0,
            critical_c=104.5,
            step_c=0.1,
        ),
        Device(
            "sealed-box",
            "Raspberry Pi 5 in a sealed box in the sun: too hot even idle",
            frame_s=0.080,
            idle_w=2.2,
            active_w=5.5,
            thermals=Thermals(case_j_per_k=150.0, case_k_per_w=14.0),
            ambient=((0.0, 30.0), (2.0, 50.0)),
        ),
    )
}


def find_device(name: str) -> Device:
    """The device called ``name``. AppError (exit code 2) says what there is instead."""
    if name in DEVICES:
        return DEVICES[name]
    near = difflib.get_close_matches(name, DEVICES, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise AppError(
        f"--device {name}: no such simulated device; {hint}one of: {', '.join(DEVICES)}", EXIT_USAGE
    )
