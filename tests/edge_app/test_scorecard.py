"""The bars of the scorecard. What is left out here is only its measuring of time."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edge_app.governor import scorecard
from edge_app.governor.simulation import bars, endurance
from edge_app.governor.simulation.bars import Bar
from edge_app.governor.simulation.devices import DEVICES
from edge_app.governor.simulation.noise import Noise


def missed(measured: list[Bar]) -> list[Bar]:
    return [bar for bar in measured if not bar.passed]


def test_hot_soak_is_calm_and_cool_on_every_board() -> None:
    measured = list(bars.hot_soak())
    assert not missed(measured) and len(measured) == 2 * len(bars.soak_plants())


def test_calmer_than_every_baseline_that_keeps_as_cool() -> None:
    measured = list(bars.calmer_than_baselines())
    assert not missed(measured)
    assert {"one threshold", "tier table", "step_wise"} < {bar.case for bar in measured}


def test_reacts_in_time() -> None:
    measured = list(bars.reactions())
    assert not missed(measured) and len(measured) == 4


def test_a_lying_thermometer_is_found_out() -> None:
    assert not missed(list(bars.lying_thermometer()))


def test_no_false_alarm_on_healthy_boards() -> None:
    assert not missed(list(bars.false_alarms(runs=4)))


def test_healthy_boards_differ() -> None:
    boards = [bars.healthy_device(Noise(seed)) for seed in range(40)]
    assert len({board.thermals for board in boards}) == 40
    assert {board.tells_throttling for board in boards} == {True, False}
    assert max(share for board in boards for _, share in board.others) > 0.7


def test_an_impossible_end_is_declared_at_the_start() -> None:
    assert not missed(list(endurance.impossible_declared()))


@pytest.mark.parametrize(("error", "tells_power"), [(-0.25, True), (0.25, False)])
def test_lasts_until_it_should(error: float, tells_power: bool) -> None:
    device, hours = endurance.handheld(tells_power), 4.5
    ended = endurance.last_until(device, endurance.until_policy(device, hours), hours, error, 1)
    late = ended.lasted_s / (hours * 3600.0) - 1.0
    assert 0.0 <= late <= endurance.MOST_LATE
    assert ended.changes < 25


def test_lasts_until_it_should_by_a_noisy_gauge() -> None:
    device, hours = endurance.handheld(False, endurance.GAUGE_NOISE), 4.0
    ended = endurance.last_until(device, endurance.until_policy(device, hours), hours, 0.25, 40)
    late = ended.lasted_s / (hours * 3600.0) - 1.0
    assert 0.0 <= late <= endurance.MOST_LATE
    assert ended.in_an_hour <= ended.changes < 25


def test_who_is_told_another_time_misses_the_end() -> None:
    """So that the bar is not met by doing nothing."""
    device = endurance.handheld(True)
    patient = endurance.until_policy(device, 3.0)
    assert endurance.last_until(device, patient, 5.0, 0.0, 1).lasted_s < 5.0 * 3600.0


def test_where_the_coolest_rung_settles() -> None:
    board = replace(DEVICES["pi5-passive"], ambient=((0.0, 20.0), (1.0, 30.0)), others_w=0.0)
    fixed = bars.policy_at(10.0, "frame.min_fps=2.5")
    # 2.2 W and 2.5 frames a second of 20 ms at 5.5 W, through 12 K/W.
    assert bars.coolest_c(board, fixed) == pytest.approx(30.0 + (2.2 + 0.275) * 12.0)
    assert bars.control_of(board, fixed) == 78.0
    assert bars.control_of(replace(board, passive_c=75.0), fixed) == 73.0


@pytest.mark.slow
@pytest.mark.parametrize("topic", ["healthy", "until"])
def test_the_whole_scorecard(topic: str) -> None:
    """The rest of it is in the tests above."""
    assert not missed(scorecard.measure([topic]))


def test_own_cost_is_measured_here() -> None:
    measured = scorecard.measure(["cost"])
    assert [bar.topic for bar in measured] == ["cost", "cost"]
    assert "p99" in measured[0].measured and "of one core" in measured[1].measured


def test_prints_a_table_or_json_and_says_by_its_exit_code_whether_all_is_met(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = Bar("soak", "a", "1", "<= 2", True), Bar("soak", "b", "3", "<= 2", False)
    monkeypatch.setitem(scorecard.TOPICS, "soak", lambda: iter([good]))
    assert scorecard.main(["--only", "soak"]) == 0
    assert "1 of 1 bars met" in capsys.readouterr().out
    monkeypatch.setitem(scorecard.TOPICS, "soak", lambda: iter([good, bad]))
    assert scorecard.main(["--only", "soak", "--json"]) == 1
    assert [bar["passed"] for bar in json.loads(capsys.readouterr().out)] == [True, False]
    assert scorecard.main(["--only", "soak"]) == 1
    assert "FAIL" in capsys.readouterr().out
