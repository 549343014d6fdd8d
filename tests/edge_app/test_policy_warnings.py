"""What is legal and odd: in the policy by itself, now, and on a device."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from edge_app.governor import presets
from edge_app.policy.layers import Resolved, Sources, load
from edge_app.policy.oddities import oddities, warnings
from edge_app.sensors import Battery, Quality, Reading, Sample, Zone

NOON = datetime(2030, 6, 1, 12, 0, tzinfo=timezone(timedelta(hours=2)))


def reading(value: float) -> Reading:
    return Reading(value, 0.0, Quality.OK, "x")


PI = (
    Zone("cpu-thermal", reading(50.0), passive_c=80.0, critical_c=110.0),
    Zone("gpu-thermal", reading(48.0), passive_c=60.0),
)
GAUGE = Battery(True, reading(0.8), True, False)
LAPTOP = Battery(True, reading(0.8), True, False, energy=reading(1e5), full_j=2e5)


def resolved(text: str, tmp_path: Path) -> Resolved:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return load(Sources(path))


def odd(
    text: str,
    tmp_path: Path,
    zones: tuple[Zone, ...] = PI,
    battery: Battery = LAPTOP,
    now: datetime = NOON,
) -> list[str]:
    """What is odd, without directory and the line that follows."""
    sample = Sample(0.0, zones=zones, battery=battery)
    found = warnings(resolved(text, tmp_path), sample, now)
    return [warning.replace(f"{tmp_path}/", "").split("\n")[0] for warning in found]


@pytest.mark.parametrize("preset", presets())
def test_shipped_policies_are_not_odd_on_a_common_device(preset: str) -> None:
    found = oddities(load(Sources(preset=preset)), Sample(0.0, zones=PI, battery=LAPTOP), NOON)
    assert found == []


def test_zone_that_is_not_there(tmp_path: Path) -> None:
    assert odd("[thermal]\nzones = ['cpu*', 'soc*',\n 'TPU']", tmp_path) == [
        (
            'policy.toml:2:18: warning: thermal.zones.1: "soc*" matches nothing on this device; '
            "remove it, or name one of its zones: cpu-thermal, gpu-thermal"
        ),
        (
            'policy.toml:3:2: warning: thermal.zones.2: "TPU" matches nothing on this device; '
            "remove it, or name one of its zones: cpu-thermal, gpu-thermal"
        ),
    ]
    assert odd("thermal.zones = ['tpu']", tmp_path) == [
        (
            "policy.toml:1:9: warning: thermal.zones: matches nothing on this device; name one of "
            "its zones: cpu-thermal, gpu-thermal"
        )
    ]
    (found,) = odd("", tmp_path, zones=(Zone("strange", reading(40.0)),))
    assert "balanced.toml" in found and "name one of its zones: strange" in found


def test_device_without_zones(tmp_path: Path) -> None:
    (found,) = odd("[thermal]\nzones = ['cpu*']", tmp_path, zones=())
    assert "has no thermal zone: at most 4 bits run" in found
    (found,) = odd("[thermal]\nrequired = true", tmp_path, zones=())
    assert found.startswith("policy.toml:2:1: warning: thermal.required: `run` will refuse")


def test_limits_above_those_of_the_device(tmp_path: Path) -> None:
    text = "[thermal]\ncontrol_c = 85\ncritical_c = 112\npause_c = 115\n"
    assert odd(text, tmp_path) == [
        (
            "policy.toml:2:1: warning: thermal.control_c: 85 is above this device's passive trip "
            "80 of cpu-thermal: 78 counts (thermal.use_trips); give less than 80"
        ),
        (
            "policy.toml:3:1: warning: thermal.critical_c: 112 is above this device's critical "
            "trip 110 of cpu-thermal: 102 counts (thermal.use_trips); give less than 110"
        ),
        (
            "policy.toml:4:1: warning: thermal.pause_c: 115 is above this device's critical trip "
            "110 of cpu-thermal: 107 counts (thermal.use_trips); give less than 110"
        ),
    ]
    blind = odd(f"{text}use_trips = false\n", tmp_path)
    assert "the kernel throttles before" in blind[0] and "the device is off before" in blind[1]
    # A zone that is not obeyed has no say: the GPU's passive trip is 60 °C.
    assert odd("[thermal]\ncontrol_c = 79\n", tmp_path) == []


def test_until_that_is_past_means_tomorrow(tmp_path: Path) -> None:
    text = "[battery]\nuntil = 11:30:00\n"
    assert odd(text, tmp_path) == [
        (
            "policy.toml:2:1: warning: battery.until: 11:30 is past today (it is 12:00): it means "
            "tomorrow; nothing to do if you mean that"
        )
    ]
    assert odd(text, tmp_path, now=NOON - timedelta(hours=1)) == []


def test_battery_keys_without_a_battery(tmp_path: Path) -> None:
    text = "[battery]\nuntil = 18:00:00\ncapacity_wh = 50\nrequired = true\n"
    found = odd(text, tmp_path, battery=Battery(False, Reading(None, 0.0, Quality.ABSENT, "x")))
    keys = [warning.split(": ")[2] for warning in found]
    assert keys == ["battery.until", "battery.capacity_wh", "battery.required"]
    assert "does nothing; remove it" in found[0] and "`run` will refuse to start" in found[2]


def test_until_on_a_battery_of_unknown_size(tmp_path: Path) -> None:
    text = "[battery]\nuntil = 18:00:00\n"
    (found,) = odd(text, tmp_path, battery=GAUGE)
    assert "does not say what it holds" in found and "give battery.capacity_wh" in found
    assert odd(f"{text}capacity_wh = 50\n", tmp_path, battery=GAUGE) == []
    assert odd(text, tmp_path, battery=LAPTOP) == []


@pytest.mark.parametrize(
    ("text", "key", "what"),
    [
        ("confidence.start_bits = 8\nlevels.max_bits = 6", "confidence.start_bits", "above levels"),
        (
            "levels.min_bits = 4\nconfidence.start_bits = 2\nbattery.tiers = []",
            "levels.min_bits",
            "4 runs also where less is asked for: confidence.start_bits = 2, "
            "failsafe.lost_thermal_sensor_bits = 2; lower it",
        ),
        ("levels.max_bits = 5", "levels.max_bits", "no shipped model has 5 bits; 4 run"),
        ("battery.tiers = [{below=9, max_bits=3}]", "battery.tiers.0.max_bits", "has 3 bits"),
        ("battery.reserve = 0.1", "battery.reserve", "0.1 means 0.1 %, not 10 %; write 10"),
        ("battery.tiers = [{below=0.4, max_bits=4}]", "battery.tiers.0.below", "0.4 %, not 40 %"),
        ("load.other_load = 0.25", "load.other_load", "write 25"),
        ("[confidence]\nstart_bits = 2\nmax_per_s = 0", "confidence.max_per_s", "all stay at 2"),
        (
            "[confidence]\nstart_bits = 2\nescalate_below = 0",
            "confidence.escalate_below",
            "no frame is run again",
        ),
        (
            "[stability]\nraise_dwell_s = 3\nlower_dwell_s = 9",
            "stability.raise_dwell_s",
            "rise faster than they fall",
        ),
        ("levels.min_bits = 4", "levels.min_bits", "battery.tiers.2.max_bits = 2"),
    ],
)
def test_oddities_of_the_policy_itself(text: str, key: str, what: str, tmp_path: Path) -> None:
    policy = resolved(text, tmp_path)
    (problem,) = oddities(policy, None, NOON)
    assert problem.place == str(tmp_path / "policy.toml") and problem.key == key
    assert problem.position is not None
    assert what in problem.what and problem.severity == "warning"


def test_without_a_sample_nothing_is_said_of_the_device(tmp_path: Path) -> None:
    text = "[thermal]\nzones = ['tpu']\ncontrol_c = 85\n[battery]\ncapacity_wh = 5\n"
    assert oddities(resolved(text, tmp_path), None, NOON) == []
    assert len(odd(text, tmp_path, battery=GAUGE)) == 1, "85 is above no trip of zones obeyed"


def test_oddities_name_their_layer() -> None:
    policy = load(Sources(overrides=("levels.max_bits=7",)))
    (text,) = warnings(policy, None, NOON)
    assert text == (
        "--set: warning: levels.max_bits: no shipped model has 7 bits; 6 run unless yours has\n"
        "    levels.max_bits=7"
    )
