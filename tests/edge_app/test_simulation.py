"""Baselines, the simulated loop, and `policy simulate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

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
from edge_app.governor.simulation.plant import (
    CLOCK_SHARES,
    Pack,
)
from edge_app.governor.simulation.run import DecisionLog, Run, Scenario, Tally, World, simulate
from edge_app.sensors import Quality, Reading, Sample, Zone

LEVELS = (2, 4, 6, 8)


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
