"""What simulated sensors tell of the device: noise, steps, faults."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_app.governor.simulation.devices import DEVICES
from edge_app.governor.simulation.instruments import Fault, Instruments, Truth
from edge_app.governor.simulation.noise import Noise
from edge_app.governor.simulation.plant import Cell
from edge_app.sensors import Quality, Reading


def test_noise_is_the_same_on_every_machine() -> None:
    noise = Noise(1)
    assert [repr(noise.draw(1.0)) for _ in range(2)] == [
        "-0.4440864520199561",
        "0.5371165246921126",
    ]
    many = [Noise(seed).draw(2.0) for seed in range(3000)]
    mean = sum(many) / len(many)
    assert abs(mean) < 0.15
    assert (sum((x - mean) ** 2 for x in many) / len(many)) ** 0.5 == pytest.approx(2.0, rel=0.06)


def readings(*faults: Fault, seconds: int = 40) -> list[Reading]:
    device = replace(DEVICES["pi5-passive"], noise_c=0.0)
    instruments = Instruments(device, Noise(1), faults)
    truth = Truth(60.2, 1.0, 0.0, 2.0, None)
    return [instruments.sample(truth, float(now)).zones[0].reading for now in range(seconds)]


def test_a_sound_thermometer_is_quantised() -> None:
    assert {(reading.value, reading.quality) for reading in readings()} == {(60.0, Quality.OK)}


@pytest.mark.parametrize(
    ("fault", "value", "quality"),
    [
        (Fault("missing", 10), None, Quality.MISSING),
        (Fault("sentinel", 10), -273.15, Quality.IMPLAUSIBLE),
        (Fault("sentinel", 10, value=-256.0), -256.0, Quality.IMPLAUSIBLE),
        (Fault("unit", 10), 0.06, Quality.IMPLAUSIBLE),
        (Fault("stuck", 10, value=55.0), 55.0, Quality.OK),
        (Fault("drift", 10, value=3600.0), 89.0, Quality.OK),
        (Fault("spike", 10), 60.0, Quality.OK),
    ],
    ids=lambda part: part.kind if isinstance(part, Fault) else "",
)
def test_faults_begin_when_they_are_told_to(
    fault: Fault, value: float | None, quality: Quality
) -> None:
    before, after = readings(fault)[9], readings(fault)[39]
    assert (before.value, before.quality) == (60.0, Quality.OK)
    assert (after.value, after.quality) == (value, quality)


def test_a_fault_ends_and_a_spike_is_one_reading() -> None:
    ended = readings(Fault("missing", 10, end_s=20))
    assert ended[19].value is None and ended[20].ok
    spikes = readings(Fault("spike", 10, every_s=8))
    assert [now for now, reading in enumerate(spikes) if reading.value == 124.0] == [10, 18, 26, 34]


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="'melted'"):
        Fault("melted", 0)


def test_a_gauge_tells_steps_of_charge_and_what_its_pack_tells() -> None:
    device = DEVICES["handheld-battery"]
    pack = device.pack
    assert pack is not None
    cell = Cell(pack, 0.4321)
    truth = Truth(40.0, 1.0, 0.0, 2.0, cell)
    battery = Instruments(device, Noise(1)).sample(truth, 0.0).battery
    assert battery.charge.value == pytest.approx(0.43, abs=0.021) and battery.discharging
    assert battery.charge.value * 100 == pytest.approx(round(battery.charge.value * 100))
    assert battery.full_j == 12.0 * 3600 and battery.power.value == pytest.approx(2.0, abs=0.2)
    quiet = replace(device, pack=replace(pack, tells_power=False, tells_energy=False))
    cell = Cell(replace(pack, tells_power=False, tells_energy=False), 0.5)
    battery = Instruments(quiet, Noise(1)).sample(Truth(40, 1, 0, -1.0, cell), 0.0).battery
    assert battery.discharging is False and battery.full_j is None
    assert {battery.energy.quality, battery.power.quality} == {Quality.ABSENT}
