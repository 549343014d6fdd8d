"""The plant against closed forms, the instruments' faults, the loop, and `policy simulate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.clock import ManualClock
from edge_app.errors import EXIT_MODEL, EXIT_USAGE, AppError
from edge_app.governor import Governor, load_policy
from edge_app.governor.simulation import command
from edge_app.governor.simulation.baselines import (
    Baseline,
    baselines,
    one_threshold,
    static,
    step_wise,
    tier_table,
)
from edge_app.governor.simulation.devices import DEVICES, Device, find_device
from edge_app.governor.simulation.instruments import Fault, Instruments, Truth
from edge_app.governor.simulation.noise import Noise
from edge_app.governor.simulation.plant import (
    CLOCK_SHARES,
    OPEN_CIRCUIT_V,
    Cell,
    Heat,
    KernelThrottle,
    Pack,
    Thermals,
    at,
)
from edge_app.governor.simulation.run import DecisionLog, Run, Scenario, Tally, World, simulate
from edge_app.sensors import Quality, Reading, Sample, Zone

LEVELS = (2, 4, 6, 8)
IDEAL = Pack(10.0, resistance_ohm=0.0, peukert=0.0)

thermals = st.builds(
    Thermals,
    chip_j_per_k=st.floats(1, 80),
    chip_k_per_w=st.floats(1, 5),
    case_j_per_k=st.floats(10, 300),
    case_k_per_w=st.floats(2, 15),
)


# Plant -------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(thermals, st.lists(st.tuples(st.floats(0, 15), st.floats(-10, 50)), min_size=1, max_size=50))
def test_heat_is_neither_made_nor_lost(parts: Thermals, seconds: list[tuple[float, float]]) -> None:
    heat = Heat(parts, 25.0)
    before = heat.stored_j
    for watts, ambient_c in seconds:
        heat.second(watts, ambient_c)
    put_in = sum(watts for watts, _ in seconds)
    assert heat.stored_j - before == pytest.approx(put_in - heat.into_surroundings_j, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(thermals, st.floats(0, 12), st.floats(-10, 50))
def test_settles_at_two_resistances_in_a_row(
    parts: Thermals, watts: float, ambient_c: float
) -> None:
    heat = Heat(parts, ambient_c + watts * (parts.chip_k_per_w + parts.case_k_per_w) * 0.98)
    both = parts.chip_k_per_w + parts.case_k_per_w
    slowest = parts.chip_j_per_k * both + parts.case_j_per_k * parts.case_k_per_w
    for _ in range(int(slowest * 8)):
        heat.second(watts, ambient_c)
    case_c = ambient_c + watts * parts.case_k_per_w
    assert heat.case_c == pytest.approx(case_c, abs=0.05)
    assert heat.chip_c == pytest.approx(case_c + watts * parts.chip_k_per_w, abs=0.05)


def test_warms_up_with_its_time_constant() -> None:
    parts = Thermals(chip_j_per_k=0.5, chip_k_per_w=1.0, case_j_per_k=60.0, case_k_per_w=5.0)
    heat = Heat(parts, 20.0)
    for _ in range(round(60.0 * 5.0)):
        heat.second(4.0, 20.0)
    assert (heat.case_c - 20.0) / (4.0 * 5.0) == pytest.approx(0.632, abs=0.01)


def test_kernel_throttles_step_by_step_and_lets_go_with_hysteresis() -> None:
    kernel = KernelThrottle(85.0)
    states = []
    for celsius in (84.9, 85.0, 85.0, 84.0, 83.0, 82.9, 82.9, 82.9):
        kernel.second(celsius)
        states.append(kernel.state)
    assert states == [0, 1, 2, 2, 2, 1, 0, 0]
    for _ in range(50):
        kernel.second(100.0)
    assert kernel.clock == CLOCK_SHARES[-1]


def test_an_ideal_battery_gives_what_is_printed_on_it() -> None:
    cell = Cell(IDEAL, 1.0)
    while not cell.empty:
        cell.second(5.0)
    assert cell.drawn_j == pytest.approx(10.0 * 3600.0, rel=0.005)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 20), min_size=1, max_size=200))
def test_a_battery_drains_as_its_current_is_integrated(watts: list[float]) -> None:
    cell, coulombs = Cell(IDEAL, 0.9), 0.0
    for load in watts:
        coulombs += load / cell.volts
        cell.second(load)
        assert cell.volts >= OPEN_CIRCUIT_V[0][1]
    assert 0.9 - cell.charge == pytest.approx(coulombs / IDEAL.full_coulombs)


def test_resistance_and_high_currents_cost_energy() -> None:
    def given_out(pack: Pack, watts: float) -> tuple[float, float]:
        cell = Cell(pack, 1.0)
        while not cell.empty:
            cell.second(watts)
        return cell.drawn_j, cell.drawn_j + cell.lost_j

    gentle, total = given_out(Pack(10.0), 1.0)
    hard, hard_total = given_out(Pack(10.0), 15.0)
    assert hard < 0.97 * gentle < gentle < 36000.0
    assert total == pytest.approx(36000.0, rel=0.01) == hard_total


def test_charging_fills_no_further_than_full() -> None:
    cell = Cell(Pack(1.0), 0.95)
    for _ in range(600):
        cell.second(-3.0)
    assert cell.charge == 1.0 and cell.lost_j > 0


def test_courses_are_straight_between_their_points() -> None:
    course = ((1.0, 10.0), (3.0, 20.0))
    assert [at(course, x) for x in (0.0, 1.0, 2.0, 3.0, 9.0)] == [10.0, 10.0, 15.0, 20.0, 20.0]


# Noise and instruments ---------------------------------------------------------------------------


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


# Baselines ---------------------------------------------------------------------------------------


def feed(baseline: Baseline, celsius: Sequence[float | None]) -> list[int]:
    rungs = []
    for now, value in enumerate(celsius):
        quality = Quality.MISSING if value is None else Quality.OK
        zone = Zone("cpu", Reading(value, float(now), quality, "cpu"))
        rungs.append(baseline.step(Sample(float(now), (zone,))).rung)
    return rungs


def test_what_the_baselines_do() -> None:
    assert feed(static(LEVELS, 10.0, 4), [20.0, 99.0]) == [1, 1]
    # Looked at every other second; blind, it goes on.
    assert feed(one_threshold(LEVELS, 10.0), [70, 76, 76, 70, None, None, 70]) == [
        3,
        3,
        0,
        0,
        0,
        0,
        3,
    ]
    assert feed(tier_table(LEVELS, 10.0), [64.9, 65.0, 72.0, 78.0, 60.0]) == [3, 2, 1, 0, 3]
    assert feed(step_wise(LEVELS, 10.0, 78.0), [77, 78, 79, 79, 80, 79, 77, 76]) == [
        3,
        2,
        1,
        1,
        0,
        0,
        1,
        2,
    ]


def test_baselines_have_the_governor_s_interface() -> None:
    for baseline in baselines(LEVELS, 10.0, 78.0).values():
        step = baseline.step(Sample(0.0))
        assert not step.changed and baseline.level == baseline.first_level == LEVELS[step.rung]
        assert baseline.frame_interval_s == 0.1 and not baseline.paused
        assert baseline.escalate(2, 0.0) is None


# The loop ----------------------------------------------------------------------------------------


def govern(device: Device, hours: float, *overrides: str, seed: int = 1) -> Run:
    clock = ManualClock()
    policy = load_policy(None, overrides=["frame.target_fps=10", *overrides])
    governor = Governor(policy, device.levels, device.profile(), clock)
    return simulate(
        "ours", governor, Scenario(device, hours, seed), clock, {b: b / 10 for b in LEVELS}
    )


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_runs_and_says_that_it_is_assumed(name: str) -> None:
    summary = govern(DEVICES[name], 0.1).summary()
    assert summary["mean_fps"] > 2 and 2 <= summary["mean_bits"] <= 8
    assert summary["accuracy"] == pytest.approx(summary["mean_bits"] / 10, abs=0.01)
    assert (summary["charge"] is None) == (DEVICES[name].pack is None)


def test_all_that_is_drawn_becomes_heat() -> None:
    device = replace(DEVICES["pi5-passive"], ambient=((0.0, 20.0),))
    world, tally = World(Scenario(device, 1.0)), Tally()
    fixed, drawn, before = static(LEVELS, 10.0, 8), 0.0, 0.0
    before = world.heat.stored_j
    for now in range(600):
        world.second(float(now), world.frames(fixed, float(now), tally, None))
        drawn += world.watts
    gained = world.heat.stored_j - before + world.heat.into_surroundings_j
    assert gained == pytest.approx(drawn)
    assert tally.frames == pytest.approx(6000, abs=30)
    # 80 % of the time at 5.5 W above idle, and a little for others.
    assert drawn / 600 == pytest.approx(2.2 + 0.05 + 0.8 * 5.5, rel=0.01)


def test_throttling_makes_frames_slower_and_cheaper() -> None:
    def run(clock_state: int, others: float) -> tuple[int, float]:
        device = replace(DEVICES["pi5-passive"], others=((0.0, others),))
        world, tally = World(Scenario(device, 1.0)), Tally()
        world.kernel.state = clock_state
        fixed = static(LEVELS, 0.0, 8)
        joules = sum(world.frames(fixed, float(now), tally, None) for now in range(60))
        return tally.frames, joules / tally.frames

    frames, joules = run(0, 0.0)
    slower, cheaper = run(len(CLOCK_SHARES) - 1, 0.0)
    contended, same = run(0, 0.8)
    assert slower == pytest.approx(frames * CLOCK_SHARES[-1], rel=0.03)
    assert cheaper == pytest.approx(joules * CLOCK_SHARES[-1])
    assert contended == pytest.approx(frames * 0.6, rel=0.03) and same == pytest.approx(joules)


def test_the_same_seed_is_the_same_run() -> None:
    device = DEVICES["pi5-passive"]
    one, two, other = (govern(device, 0.4, seed=seed) for seed in (3, 3, 4))
    assert one == two
    assert one.curves != other.curves


def test_a_device_dies_of_a_flat_battery_and_of_heat() -> None:
    handheld = replace(DEVICES["handheld-battery"], pack=Pack(0.3))
    flat = govern(handheld, 1.0).summary()
    assert flat["died_of"] == "flat battery" and 0.05 < flat["died_after_hours"] < 0.3
    oven = replace(DEVICES["pi5-passive"], ambient=((0.0, 112.0),))
    assert govern(oven, 0.5).summary()["died_of"] == "heat"


def test_a_log_has_every_change_and_a_row_a_minute() -> None:
    device = DEVICES["pi5-passive"]

    def text() -> str:
        clock = ManualClock()
        log = DecisionLog(device=device.name, seed=1)
        governor = Governor(load_policy(None), device.levels, device.profile(), clock)
        simulate("ours", governor, Scenario(device, 0.5), clock, None, [log])
        return log.text

    assert text() == text()
    header, *rows = [json.loads(line) for line in text().splitlines()]
    assert header == {"log": "edge-app/decisions/1", "device": "pi5-passive", "seed": 1}
    minutes = [row["t"] for row in rows if row["t"] % 60 == 0]
    assert minutes == [60.0 * minute for minute in range(30)]
    assert any(row["changed"] for row in rows)


# policy simulate ---------------------------------------------------------------------------------


def test_a_comparison_as_table_json_log_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, log, picture = (tmp_path / name for name in ("r.json", "d.jsonl", "p.png"))
    command(
        device="handheld-battery",
        hours=0.2,
        ambient="20..30",
        until="9:00".zfill(5),
        plot=picture,
        json=report,
        log=log,
    )
    printed = capsys.readouterr().out
    assert "balanced" in printed and "step_wise" in printed and "simulated" in printed
    runs = {run["governor"]: run for run in json.loads(report.read_text())["runs"]}
    assert set(runs) == {
        "balanced",
        "static 8",
        "static 2",
        "one threshold",
        "tier table",
        "step_wise",
    }
    assert runs["static 8"]["accuracy"] > runs["static 2"]["accuracy"] > 0.5
    assert runs["static 8"]["energy_wh"] > runs["static 2"]["energy_wh"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(log.read_text().splitlines()) > 12
    assert not list(tmp_path.glob("*.part"))


def test_json_instead_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    command(
        device="pi5-fan",
        hours=0.05,
        policies=["coolest", "fastest"],
        baselines=False,
        json=Path("-"),
    )
    report = json.loads(capsys.readouterr().out)
    assert [run["governor"] for run in report["runs"]] == ["coolest", "fastest"]
    assert "none was measured" in report["note"]


def test_a_recording_is_replayed_in_open_loop(capsys: pytest.CaptureFixture[str]) -> None:
    command(trace="heat-and-recover", policies=["balanced", "coolest"], json=Path("-"))
    report = json.loads(capsys.readouterr().out)
    assert "open loop" in report["note"]
    runs = report["runs"]
    assert {run["peak_c"] for run in runs} == {77.7}, "as recorded, whoever governs"
    assert {run["hours"] for run in runs} == {0.667}
    bits = {run["governor"]: run["mean_bits"] for run in runs}
    assert bits["static 8"] == 8 > bits["balanced"] > bits["static 2"] == 2


def test_a_policy_file_and_a_slower_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "mine.toml"
    policy.write_text('schema = 1\nname = "mine"\n[levels]\nmax_bits = 4\n')
    command(
        device="pi5-fan",
        hours=0.05,
        policies=[str(policy)],
        model="digits",
        baselines=False,
        json=Path("-"),
    )
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["governor"] == str(policy) and run["mean_bits"] <= 4 and run["accuracy"] > 0.98


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "pi6"}, "--device pi6: no such simulated device"),
        ({"device": "pi5-pasive"}, "did you mean pi5-passive"),
        ({"hours": 0.0}, "--hours 0: must be above 0"),
        ({"trace": "heat-and-recover", "hours": 1.0}, "a recording has its own length"),
        ({"trace": "heat-and-recover", "ambient": "20"}, "a recording has its own"),
        ({"trace": "nothing"}, "--trace nothing: no such trace"),
        ({"ambient": "warm"}, "--ambient warm: must be"),
        ({"ambient": "20..200"}, "within -40..85"),
        ({"until": "25:00"}, "--until 25:00: must be a time of day"),
        ({"policies": ["none.toml"]}, "--policy none.toml: no such file"),
        ({"policies": ["balanced", "coolest"], "log": Path("x")}, "--log holds one policy"),
    ],
)
def test_what_cannot_be_simulated(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(AppError) as caught:
        command(**arguments)  # type: ignore[arg-type]
    assert message in caught.value.message and caught.value.exit_code == EXIT_USAGE


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(AppError) as caught:
        command(model="nothing")
    assert caught.value.exit_code == EXIT_MODEL


def test_find_device() -> None:
    assert find_device("sealed-box").name == "sealed-box"
