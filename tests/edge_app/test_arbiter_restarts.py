"""The arbiter across another policy, a fall and a restart, and what it makes of any saved state."""

from __future__ import annotations

import math

import pytest
from arbiter_samples import FREE, LADDER, POLICY, TOP, heat, load, make_arbiter, raise_once
from governor_samples import LEVELS, a_policy

from edge_app.governor.arbiter import Arbiter
from edge_app.governor.caps import Cap
from edge_app.governor.ladder import build_ladder


def test_another_policy_never_exceeds_the_present_point() -> None:
    arbiter = make_arbiter(4)
    policy = a_policy("levels.max_bits=4", "stability.raise_dwell_s=50")
    arbiter.replace(build_ladder(LEVELS, policy), policy.stability, True, 10.0)
    assert (arbiter.point.bits, arbiter.point.fps, arbiter.held_by) == (4, 30.0, "policy")
    assert arbiter.move([Cap("policy", 3, "")], 11.0).cause == "policy"
    # And back: nothing is raised without the dwell of the policy that applies.
    arbiter.replace(LADDER, POLICY.stability, False, 12.0)
    assert arbiter.point.bits == 4
    assert arbiter.move([FREE], 13.0).wait_s == 20.0


def test_another_policy_at_the_same_point_leaves_the_cause() -> None:
    arbiter = make_arbiter(4)
    arbiter.replace(LADDER, POLICY.stability, False, 10.0)
    assert arbiter.rung == 4 and arbiter.held_by == "thermal"


def test_another_policy_restarts_the_dwell_and_keeps_the_back_off() -> None:
    arbiter = make_arbiter(3)
    time = raise_once(arbiter, heat(4), 1.0)
    arbiter.move([heat(3)], time + 1.0)
    arbiter.move([heat(4)], time + 2.0)
    arbiter.replace(LADDER, POLICY.stability, False, time + 30.0)
    assert arbiter.move([heat(4)], time + 30.0).wait_s == 40.0


def test_fall_goes_to_the_lowest_rung_and_stays_there_for_a_dwell() -> None:
    arbiter = make_arbiter(4)
    arbiter.fall(30.0)
    assert (arbiter.rung, arbiter.held_by) == (0, "failsafe")
    assert arbiter.move([FREE], 31.0).wait_s == 20.0
    fresh = make_arbiter(None)
    fresh.fall(0.0)
    fresh.move([FREE], 1.0)
    assert fresh.rung == 0, "the first move does not undo it"


def restarted(arbiter: Arbiter, now: float) -> Arbiter:
    """Another one that goes on 1000 s earlier by its own clock."""
    fresh = make_arbiter(None)
    fresh.restore(arbiter.state(now), now - 1000.0)
    return fresh


def test_state() -> None:
    arbiter = make_arbiter(3)
    time = raise_once(arbiter, heat(4), 1.0)
    assert arbiter.state(time + 5.0) == {
        "bits": 6,
        "fps": 30.0,
        "held_by": "thermal",
        "failed_s": None,
        "dwell": [],
        "raised": [[6, 30.0, 5.0, "thermal"]],
    }
    arbiter.move([heat(3)], time + 9.0)
    state = arbiter.state(time + 12.0)
    assert (
        state["failed_s"] == 3.0 and state["dwell"] == [[6, 30.0, 40.0]] and state["raised"] == []
    )
    assert state["bits"] == 4 and make_arbiter(0).state(0.0)["fps"] == 7.5


def test_restart_of_the_program_does_not_raise() -> None:
    fresh = restarted(make_arbiter(2), 50.0)
    move = fresh.move([FREE], -940.0)
    assert (fresh.rung, move.cause, move.wait_s) == (2, "thermal", 20.0)
    assert fresh.move([FREE], -920.001).wait_s == pytest.approx(0.001)
    fresh.move([FREE], -920.0)
    assert fresh.rung == 3


def test_restart_of_the_program_may_lower_at_once() -> None:
    fresh = restarted(make_arbiter(4), 50.0)
    assert fresh.move([load(1)], -950.0).cause == "load"
    assert fresh.rung == 1 and fresh.held_by == "load"
    fresh = restarted(make_arbiter(3), 50.0)
    assert fresh.move([load(3)], -950.0).cause == "load" and fresh.rung == 3


def test_restart_of_the_program_keeps_back_off_and_its_age() -> None:
    arbiter = make_arbiter(3)
    time = raise_once(arbiter, heat(4), 1.0)
    arbiter.move([heat(3)], time + 1.0)
    fresh = restarted(arbiter, time + 2.0)
    now = time - 998.0
    assert fresh.move([heat(4)], now).wait_s == 40.0
    fresh.move([heat(3)], now + 1798.5)
    assert fresh.move([heat(4)], now + 1798.9).wait_s == 40.0
    fresh.move([heat(3)], now + 1798.95)
    assert fresh.move([heat(4)], now + 1799.0).wait_s == 20.0


def test_restart_of_the_program_remembers_a_raise_that_fails_afterwards() -> None:
    arbiter = make_arbiter(3)
    time = raise_once(arbiter, heat(4), 1.0)
    fresh = restarted(arbiter, time + 100.0)
    fresh.move([heat(4)], time - 900.0)
    fresh.move([heat(3)], time - 900.0 + 19.0)
    assert fresh.move([heat(4)], time - 900.0 + 20.0).wait_s == 40.0
    fresh = restarted(arbiter, time + 100.0)
    fresh.move([heat(4)], time - 900.0)
    fresh.move([heat(3)], time - 900.0 + 20.0)
    assert fresh.move([heat(4)], time - 900.0 + 21.0).wait_s == 20.0


@pytest.mark.parametrize(
    "state",
    [
        {"bits": 4},
        {"bits": "4", "fps": 30.0},
        {"bits": True, "fps": 30.0},
        {"bits": 0, "fps": 30.0},
        {"bits": 65, "fps": 30.0},
        {"bits": math.nan, "fps": 30.0},
        {"bits": 4, "fps": -1.0},
        {"bits": 4, "fps": 1e7},
        {"bits": 4, "fps": None},
    ],
)
def test_restored_point_that_is_none_is_ignored(state: dict[str, object]) -> None:
    arbiter = make_arbiter(None)
    arbiter.restore(state, 0.0)
    assert arbiter.held_by == "none"
    arbiter.move([FREE], 0.0)
    assert arbiter.rung == TOP


def test_restored_point_of_an_unknown_cause_is_held_by_the_policy() -> None:
    for held_by in ("none", "nonsense", None, 5):
        arbiter = make_arbiter(None)
        arbiter.restore({"bits": 1, "fps": 1e6, "held_by": held_by}, 0.0)
        assert arbiter.held_by == "policy"
        assert arbiter.move([FREE], 0.0).cause == "policy" and arbiter.rung == 0
    arbiter.restore({"bits": 64, "fps": 0.0, "held_by": "load"}, 0.0)
    assert arbiter.held_by == "load"


@pytest.mark.parametrize(
    "row",
    [
        ["x", 30.0, 40.0],
        [6, "x", 40.0],
        [6, 30.0, "x"],
        [6, 30.0, -1.0],
        [6, 30.0, 601.0],
        [6, 30.0],
        [math.nan, 30.0, 40.0],
        [6, math.nan, 40.0],
        7,
        None,
    ],
)
def test_restored_dwell_that_is_none_is_ignored(row: object) -> None:
    arbiter = make_arbiter(3)
    arbiter.restore({"failed_s": 1.0, "dwell": [row]}, 0.0)
    assert arbiter.move([heat(4)], 0.0).wait_s == 20.0


@pytest.mark.parametrize("dwell", [0.0, 600.0])
def test_restored_dwell_within_its_bounds(dwell: float) -> None:
    arbiter = make_arbiter(3)
    arbiter.restore({"failed_s": 1.0, "dwell": [["x", 30.0, 1.0], [6, 30.0, dwell]]}, 0.0)
    arbiter.move([heat(3)], 0.0)
    assert arbiter.move([heat(4)], 0.0).wait_s in (dwell, None)
    assert arbiter.rung == (4 if dwell == 0.0 else 3)


@pytest.mark.parametrize(
    "row",
    [["x", 1.0, "thermal"], [6.0, 1.0, "none"], [6.0, 1.0, 3], [6.0, 1.0], [6.0, None, "load"]],
)
def test_restored_raise_that_is_none_is_ignored(row: object) -> None:
    arbiter = make_arbiter(4)
    arbiter.restore({"raised": [row]}, 0.0)
    arbiter.move([heat(3)], 2.0)
    assert arbiter.move([heat(4)], 3.0).wait_s == 20.0
