"""The governor in a closed loop with a simulated device that heats up by what it runs.

Two thermal nodes (chip and case), a noisy thermometer of half a degree. The parameters are
plausible, not measured: the test compares control, it does not describe a board.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from edge_app.clock import ManualClock
from edge_app.governor import Governor, load_policy
from edge_app.sensors import Battery, Quality, Reading, Sample, Zone

HOURS = 2
IDLE_W = 2.2
CHIP_J_PER_K, CASE_J_PER_K = 4.0, 60.0
CHIP_K_PER_W = 3.0
NO_BATTERY = Battery(False, Reading(None, 0.0, Quality.ABSENT, "battery"))


@dataclass
class Plant:
    """Temperatures of a device whose case passes heat on with ``case_k_per_w``."""

    case_k_per_w: float
    w_per_bit: float
    chip_c: float = 35.0
    case_c: float = 35.0

    def second(self, cost: float, ambient_c: float) -> None:
        for _ in range(10):
            flow_w = (self.chip_c - self.case_c) / CHIP_K_PER_W
            self.chip_c += (IDLE_W + self.w_per_bit * cost - flow_w) / CHIP_J_PER_K * 0.1
            out_w = (self.case_c - ambient_c) / self.case_k_per_w
            self.case_c += (flow_w - out_w) / CASE_J_PER_K * 0.1


@dataclass(frozen=True)
class Soak:
    peak_c: float
    changes_per_hour: float
    mean_cost: float


def measured(plant: Plant, noise: random.Random) -> float:
    return round((plant.chip_c + noise.gauss(0.0, 0.4)) * 2) / 2


def ambient(second: int) -> float:
    """From 25 °C to 35 °C."""
    return 25.0 + 10.0 * second / (HOURS * 3600)


def soak_under_governor(plant: Plant) -> Soak:
    governor = Governor(load_policy(None), (2, 4, 6, 8), {}, ManualClock())
    noise = random.Random(7)
    peak = cost = 0.0
    changes = rung = 0
    for second in range(HOURS * 3600):
        time = float(second)
        zone = Zone("cpu", Reading(measured(plant, noise), time, Quality.OK, "cpu"))
        decision = governor.step(Sample(time, (zone,), NO_BATTERY))
        changes += decision.changed
        rung = decision.rung
        running = 0.0 if governor.paused else governor.ladder.rungs[rung].cost
        plant.second(running, ambient(second))
        peak, cost = max(peak, plant.chip_c), cost + running
    return Soak(peak, changes / HOURS, cost / (HOURS * 3600))


def soak_under_one_threshold(plant: Plant) -> Soak:
    """What many a tool does: above 75 °C the lowest level, else the highest, every two seconds."""
    noise = random.Random(7)
    peak = total = 0.0
    cost, changes = 8.0, 0
    for second in range(HOURS * 3600):
        celsius = measured(plant, noise)
        if second % 2 == 0:
            wanted = 2.0 if celsius > 75.0 else 8.0
            changes += wanted != cost
            cost = wanted
        plant.second(cost, ambient(second))
        peak, total = max(peak, plant.chip_c), total + cost
    return Soak(peak, changes / HOURS, total / (HOURS * 3600))


@pytest.mark.parametrize(
    ("case_k_per_w", "w_per_bit"), [(4.0, 0.55), (6.0, 0.55), (9.0, 0.55), (12.0, 0.55), (9.0, 1.0)]
)
def test_hot_soak_is_calm_and_below_control(case_k_per_w: float, w_per_bit: float) -> None:
    soak = soak_under_governor(Plant(case_k_per_w, w_per_bit))
    assert soak.peak_c <= load_policy(None).thermal.control_c + 1.0
    assert soak.changes_per_hour <= 25
    assert soak.mean_cost > 1.0, "it works, too"


def test_a_fan_is_made_use_of() -> None:
    soak = soak_under_governor(Plant(case_k_per_w=1.0, w_per_bit=0.55))
    assert soak.changes_per_hour == 0 and soak.mean_cost == 8.0


def test_far_fewer_changes_than_one_threshold_and_no_hotter() -> None:
    ours = soak_under_governor(Plant(9.0, 0.55))
    theirs = soak_under_one_threshold(Plant(9.0, 0.55))
    assert ours.changes_per_hour * 5 < theirs.changes_per_hour
    assert ours.peak_c <= theirs.peak_c + 1.0
