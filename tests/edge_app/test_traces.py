"""Sensor traces: playing them, what is wrong with a file, and where the shipped ones come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_app.clock import ManualClock
from edge_app.errors import EXIT_USAGE, AppError
from edge_app.governor import Decision, Governor, load_policy
from edge_app.governor.simulation import traces
from edge_app.sensors import Quality, TraceSensors

SHIPPED = Path(traces.__file__).parent.parent.parent / "assets" / "traces"
HEADER = {"trace": "edge-app/sensors/1", "made_by": "a test", "note": "written by hand"}


def make_trace(tmp_path: Path, *rows: dict[str, Any], header: Any = HEADER) -> Path:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in (header, *rows)) + "\n")
    return path


def replay(path: Path, preset: str = "balanced", period_s: float = 1.0) -> list[Decision]:
    """All decisions from the start of a trace to a little after its end."""
    clock = ManualClock()
    sensors = TraceSensors(path, clock)
    profile = {2: 0.001, 4: 0.002, 6: 0.003, 8: 0.004}
    governor = Governor(load_policy(None, preset), (2, 4, 6, 8), profile, clock)
    decisions = []
    while clock.now() <= sensors.seconds + 5:
        decisions.append(governor.step(sensors.sample()))
        clock.advance(period_s)
    return decisions


def walk(decisions: list[Decision]) -> list[tuple[int, str]]:
    first = decisions[0]
    return [(first.bits, first.cause)] + [(d.bits, d.cause) for d in decisions if d.changed]


def test_interpolates_numbers_and_holds_everything_else(tmp_path: Path) -> None:
    path = make_trace(
        tmp_path,
        {
            "t": 100,
            "zones": {"cpu-thermal": {"c": 50, "passive_c": 80}},
            "battery": {"charge": 0.5, "discharging": True, "power_w": 4},
            "other_load": 0.0,
            "psi_cpu_some_avg10": 10,
        },
        {
            "t": 110,
            "zones": {"cpu-thermal": {"c": 60, "passive_c": 80}},
            "battery": {"charge": 0.4, "discharging": False, "power_w": -6},
            "other_load": 0.2,
            "psi_cpu_some_avg10": 30,
            "cpu_throttled": True,
        },
    )
    clock = ManualClock(7.0)
    sensors = TraceSensors(path, clock)
    sensors.sample()
    clock.advance(2.5)
    sample = sensors.sample()
    (zone,) = sample.zones
    assert sample.time == zone.reading.time == 9.5
    assert zone.reading.value == pytest.approx(52.5) and zone.passive_c == 80
    assert sample.battery.charge.value == pytest.approx(0.475)
    assert sample.battery.power.value == pytest.approx(1.5)
    assert sample.battery.discharging is True and not sample.throttled.ok
    assert sample.other_load.value == pytest.approx(0.05)
    assert sample.cpu_pressure.value == pytest.approx(15)
    clock.advance(1000.0)
    after_the_end = sensors.sample()
    assert after_the_end.zones[0].reading.value == 60 and after_the_end.zones[0].reading.ok
    assert after_the_end.battery.discharging is False and after_the_end.throttled.value == 1


def test_never_interpolates_towards_a_sentinel(tmp_path: Path) -> None:
    path = make_trace(
        tmp_path,
        {"t": 0, "zones": {"cpu": {"c": 50}}},
        {"t": 10, "zones": {"cpu": {"c": -273.15}}},
        {"t": 20, "zones": {"cpu": {"c": 50}}},
    )
    clock = ManualClock()
    sensors = TraceSensors(path, clock)
    seen = []
    for _ in range(21):
        seen.append(sensors.sample().zones[0].reading)
        clock.advance(1.0)
    assert {reading.value for reading in seen} == {50, -273.15}
    assert [reading.quality for reading in seen[9:12]] == [
        Quality.OK,
        Quality.IMPLAUSIBLE,
        Quality.IMPLAUSIBLE,
    ]


def test_zone_without_value_and_zone_that_vanishes(tmp_path: Path) -> None:
    path = make_trace(
        tmp_path,
        {"t": 0, "zones": {"cpu": {"c": 50}, "gpu": {"c": 40}}},
        {"t": 1, "zones": {"cpu": {"c": None}}},
    )
    clock = ManualClock()
    sensors = TraceSensors(path, clock)
    sensors.sample()
    clock.advance(2.0)
    assert {z.reading.quality for z in sensors.sample().zones} == {Quality.STALE}
    clock.advance(10.0)
    assert {z.reading.quality for z in sensors.sample().zones} == {Quality.MISSING}
    details = [status.detail for status in sensors.describe()]
    assert any("written by hand" in detail for detail in details)
    assert any("vanished" in detail for detail in details)


@pytest.mark.parametrize(
    ("rows", "line", "what"),
    [
        ([], 1, "no row"),
        ([{"zones": {}}], 2, '"t" must be a number'),
        ([{"t": 1}, {"t": 1}], 3, "does not come after"),
        ([{"t": 1, "zone": {}}], 2, 'unknown key "zone"'),
        ([{"t": 1, "zones": {"cpu": {"c": "hot"}}}], 2, '"c" must be a number'),
        ([{"t": 1, "zones": {"cpu": 50}}], 2, '"zones" must be an object of objects'),
        ([{"t": 1, "battery": {"discharging": 1}}], 2, '"discharging" must be true'),
    ],
)
def test_file_that_is_no_trace(
    tmp_path: Path, rows: list[dict[str, Any]], line: int, what: str
) -> None:
    path = make_trace(tmp_path, *rows)
    with pytest.raises(AppError) as caught:
        TraceSensors(path, ManualClock())
    assert caught.value.message.startswith(f"{path}:{line}: ") and what in caught.value.message
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("text", ["", "{}", '{"trace":"other/1"}', "[1]", "not JSON"])
def test_file_without_the_header(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    with pytest.raises(AppError, match="not a sensor trace"):
        TraceSensors(path, ManualClock())


def test_not_a_number_is_not_json(tmp_path: Path) -> None:
    path = make_trace(tmp_path, {"t": 1, "other_load": float("nan")})
    with pytest.raises(AppError, match="NaN is not JSON"):
        TraceSensors(path, ManualClock())


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AppError, match="cannot be read"):
        TraceSensors(tmp_path / "none.jsonl", ManualClock())


def test_shipped_traces_are_what_the_simulation_makes(tmp_path: Path) -> None:
    paths = traces.write_traces(tmp_path)
    assert {path.name for path in paths} == {path.name for path in SHIPPED.glob("*.jsonl")}
    for path in paths:
        assert path.read_bytes() == (SHIPPED / path.name).read_bytes(), (
            "run python -m edge_app.governor.simulation.traces"
        )


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.jsonl")), ids=lambda path: path.stem)
def test_shipped_traces_say_that_they_are_simulated(path: Path) -> None:
    header = TraceSensors(path, ManualClock()).header
    assert (
        "simulated" in header["note"] and header["made_by"] == "edge_app.governor.simulation.traces"
    )


@pytest.mark.parametrize("period_s", [1.0, 2.5])
def test_heat_and_recover(period_s: float) -> None:
    """Also at uneven ticks: a busy machine does not change the story."""
    decisions = replay(SHIPPED / "heat-and-recover.jsonl", period_s=period_s)
    assert walk(decisions) == [
        (8, "none"),
        (6, "thermal"),
        (4, "thermal"),
        (2, "thermal"),
        (4, "thermal"),
        (6, "thermal"),
        (8, "thermal"),
        (6, "battery"),
        (4, "battery"),
        (6, "battery"),
        (8, "battery"),
    ]
    lowest = min(decision.fps for decision in decisions)
    assert lowest == 30.0, "no frames are shed in the demonstration"
    assert max(decision.temperature_c or 0 for decision in decisions) < 80


def test_sensor_lost() -> None:
    decisions = replay(SHIPPED / "sensor-lost.jsonl")
    there_and_back = [(2, "failsafe"), (4, "failsafe"), (6, "failsafe"), (8, "failsafe")]
    assert walk(decisions) == [(8, "none"), *there_and_back, *there_and_back]
    drops = [decision.time for decision in decisions if decision.changed and decision.bits == 2]
    # The sensor is lost at 90 s and 330 s; before that the newest good value is a row old.
    assert 90 < drops[0] <= 101 and 330 < drops[1] <= 341


def test_replay_is_deterministic() -> None:
    path = SHIPPED / "heat-and-recover.jsonl"
    assert replay(path) == replay(path)
