"""The arbiter to the tick: when a rung may move, how far, and whose doing it is."""

from __future__ import annotations

import math

import pytest
from governor_samples import LEVELS, SLOW_CPU, a_policy

from edge_app.governor.arbiter import Arbiter
from edge_app.governor.caps import Cap
from edge_app.governor.energy import Profile
from edge_app.governor.ladder import build_ladder

POLICY = a_policy()
LADDER = build_ladder(LEVELS, POLICY)
TOP = LADDER.top
FREE = Cap("policy", TOP, "")


def heat(rung: int, urgent: bool = False) -> Cap:
    return Cap("thermal", rung, "hot", urgent)


def load(rung: int) -> Cap:
    return Cap("load", rung, "busy")


def blind(rung: int) -> Cap:
    return Cap("failsafe", rung, "blind", urgent=True)


def make_arbiter(rung: int | None = TOP, limited: bool = False) -> Arbiter:
    """One that has made its first move at 0, to ``rung``."""
    arbiter = Arbiter(LADDER, POLICY.stability, limited)
    if rung is not None:
        arbiter.move([heat(rung)], 0.0)
    return arbiter


def raise_once(arbiter: Arbiter, cap: Cap, start: float, dwell: float = 20.0) -> float:
    """Allow a raise from ``start`` on, see that it takes exactly ``dwell``, return when."""
    before = arbiter.rung
    assert arbiter.move([cap], start).wait_s == dwell
    assert arbiter.move([cap], start + dwell - 0.001).wait_s == pytest.approx(0.001)
    assert arbiter.rung == before
    arbiter.move([cap], start + dwell)
    assert arbiter.rung == before + 1
    return start + dwell


def test_before_the_first_move_the_lowest_rung_holds() -> None:
    arbiter = make_arbiter(None)
    assert arbiter.rung == 0 and arbiter.point == LADDER.rungs[0] and arbiter.held_by == "none"


@pytest.mark.parametrize("target", range(TOP + 1))
def test_the_first_move_goes_straight_to_the_target(target: int) -> None:
    arbiter = make_arbiter(None)
    move = arbiter.move([FREE, heat(target)], 7.0)
    assert arbiter.rung == target and move.wait_s is None
    assert move.cause == ("thermal" if target < TOP else "none")
    assert move.binding.rung == target


def test_of_two_that_allow_the_same_the_first_is_named() -> None:
    arbiter = make_arbiter(None)
    assert arbiter.move([FREE, load(2), heat(2)], 0.0).cause == "load"
    assert arbiter.held_by == "load"


def test_the_top_of_a_ladder_that_the_policy_cut_is_the_policys_doing() -> None:
    assert make_arbiter(None, limited=True).move([FREE], 0.0).cause == "policy"
    assert make_arbiter(None, limited=False).move([FREE], 0.0).cause == "none"
    assert make_arbiter(None, limited=True).move([heat(TOP - 1)], 0.0).cause == "thermal"


def test_lowering_goes_one_rung_per_lower_dwell() -> None:
    arbiter = make_arbiter()
    seen = []
    for time in (1.0, 2.0, 2.999, 3.0, 4.999, 5.0):
        assert arbiter.move([heat(0)], time).cause == "thermal"
        seen.append(arbiter.rung)
    assert seen == [4, 4, 4, 3, 3, 2]


def test_lowering_stops_at_the_target() -> None:
    arbiter = make_arbiter()
    for time in (1.0, 3.0, 5.0, 7.0):
        arbiter.move([heat(3)], time)
    assert arbiter.rung == 3


def test_a_raise_does_not_delay_a_lowering() -> None:
    arbiter = make_arbiter(2)
    time = raise_once(arbiter, heat(5), 1.0)
    arbiter.move([heat(2)], time + 0.5)
    assert arbiter.rung == 2


def test_urgent_caps_are_obeyed_at_once_and_named() -> None:
    arbiter = make_arbiter()
    assert arbiter.move([heat(0, urgent=True)], 1.0).cause == "thermal"
    assert arbiter.rung == 0
    arbiter = make_arbiter()
    move = arbiter.move([load(1), blind(2), heat(4, urgent=True)], 1.0)
    assert (arbiter.rung, move.cause, arbiter.held_by) == (2, "failsafe", "failsafe")
    # From there on the lowest cap goes on, one rung at a time, counted from the fall.
    assert arbiter.move([load(1), blind(2)], 2.999).cause == "load" and arbiter.rung == 2
    assert arbiter.move([load(1), blind(2)], 3.0).cause == "load"
    assert arbiter.rung == 1 and arbiter.held_by == "load"


def test_urgent_caps_that_allow_more_than_the_rung_change_nothing() -> None:
    arbiter = make_arbiter(3)
    move = arbiter.move([load(0), blind(3)], 1.0)
    assert (arbiter.rung, move.cause) == (2, "load")
    arbiter = make_arbiter(3)
    assert arbiter.move([blind(5)], 1.0).wait_s == 20.0 and arbiter.rung == 3


def test_urgent_does_not_wait_for_a_lowering_dwell() -> None:
    arbiter = make_arbiter()
    arbiter.move([heat(0)], 1.0)
    arbiter.move([heat(0, urgent=True)], 1.5)
    assert arbiter.rung == 0


def test_raising_takes_one_rung_and_a_whole_dwell_each() -> None:
    arbiter = make_arbiter(1)
    time = raise_once(arbiter, heat(4), 10.0)
    for _ in range(2):
        assert arbiter.move([heat(4)], time + 19.999).wait_s == pytest.approx(0.001)
        move = arbiter.move([heat(4)], time + 20.0)
        assert move.cause == "thermal"
        time += 20.0
    assert arbiter.rung == 4 and move.wait_s is None


def test_a_raise_is_announced_with_what_is_left_of_the_dwell() -> None:
    arbiter = make_arbiter(1)
    assert arbiter.move([FREE], 5.0).wait_s == 20.0
    assert arbiter.move([FREE], 17.0).wait_s == 8.0
    assert arbiter.move([FREE], 25.0).wait_s == 20.0 and arbiter.rung == 2


def test_the_dwell_counts_from_the_last_change() -> None:
    arbiter = make_arbiter(5)
    arbiter.move([heat(4)], 3.0)
    assert arbiter.move([heat(5)], 4.0).wait_s == 20.0
    arbiter = make_arbiter(3)
    arbiter.move([heat(4)], 0.0)
    arbiter.move([heat(4)], 20.0)
    assert arbiter.move([heat(5)], 30.0).wait_s == 20.0


@pytest.mark.parametrize("interruption", [heat(3), heat(2)])
def test_whatever_interrupts_the_permission_starts_the_dwell_anew(interruption: Cap) -> None:
    arbiter = make_arbiter(3)
    arbiter.move([heat(4)], 100.0)
    assert arbiter.move([interruption], 119.0).wait_s is None
    assert arbiter.move([heat(4)], 119.5).wait_s == 20.0


def test_restart_starts_the_dwell_anew() -> None:
    arbiter = make_arbiter(3)
    arbiter.move([heat(4)], 100.0)
    arbiter.restart(119.0)
    assert arbiter.move([heat(4)], 119.0).wait_s == 20.0
    assert arbiter.move([heat(4)], 138.999).wait_s == pytest.approx(0.001)
    arbiter.move([heat(4)], 139.0)
    assert arbiter.rung == 4
    # Also where the next move comes much later.
    arbiter = make_arbiter(3)
    arbiter.restart(50.0)
    assert arbiter.move([heat(4)], 60.0).wait_s == 20.0


def test_raises_name_the_cap_that_had_held_the_rung_down() -> None:
    arbiter = make_arbiter(3)
    arbiter.move([load(4), FREE], 1.0)
    move = arbiter.move([load(4), FREE], 21.0)
    assert (move.cause, arbiter.held_by, arbiter.rung) == ("thermal", "load", 4)
    assert arbiter.move([FREE], 22.0).cause == "load"
    move = arbiter.move([FREE], 42.0)
    assert (move.cause, arbiter.held_by, arbiter.rung) == ("load", "none", 5)


def test_a_cap_that_allows_just_the_rung_becomes_the_one_that_holds_it() -> None:
    arbiter = make_arbiter(3)
    assert arbiter.move([load(3)], 1.0).cause == "load" and arbiter.held_by == "load"


# Back-off -----------------------------------------------------------------------------------------


def test_a_raise_that_is_taken_back_doubles_the_dwell_of_that_rung_up_to_a_limit() -> None:
    arbiter = make_arbiter(3)
    time = 0.0
    for dwell in (20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0):
        time = raise_once(arbiter, heat(4), time + 1.0, dwell)
        time += 119.999
        arbiter.move([heat(3)], time)
        assert arbiter.rung == 3


def test_a_raise_that_lasted_long_enough_is_no_failure() -> None:
    arbiter = make_arbiter(3)
    time = raise_once(arbiter, heat(4), 1.0)
    arbiter.move([heat(3)], time + 120.0)
    raise_once(arbiter, heat(4), time + 121.0, 20.0)


def test_a_raise_that_another_cap_takes_back_is_no_failure() -> None:
    arbiter = make_arbiter(3)
    time = raise_once(arbiter, heat(4), 1.0)
    arbiter.move([load(3)], time + 1.0)
    raise_once(arbiter, heat(4), time + 2.0, 20.0)


def test_only_the_rung_that_failed_waits_longer() -> None:
    arbiter = make_arbiter(3)
    time = raise_once(arbiter, heat(4), 1.0)
    arbiter.move([heat(3)], time + 1.0)
    for later in (3.0, 5.0):
        arbiter.move([heat(1)], time + later)
    assert arbiter.rung == 1
    time = raise_once(arbiter, heat(4), time + 6.0, 20.0)
    assert arbiter.move([heat(4)], time + 20.0).wait_s == 40.0 and arbiter.rung == 3


def test_a_fall_over_several_rungs_counts_for_each_of_them() -> None:
    arbiter = make_arbiter(2)
    time = raise_once(arbiter, heat(3), 1.0)
    time = raise_once(arbiter, heat(4), time + 1.0)
    arbiter.move([heat(0, urgent=True)], time + 1.0)
    assert arbiter.rung == 0
    time = raise_once(arbiter, heat(5), time + 2.0)
    assert arbiter.move([heat(5)], time + 20.0).wait_s == 40.0
    assert arbiter.move([heat(5)], time + 60.0).wait_s == 40.0
    assert arbiter.move([heat(5)], time + 100.0).wait_s == 20.0 and arbiter.rung == 4


def test_a_fall_does_not_count_twice() -> None:
    arbiter = make_arbiter(3)
    time = raise_once(arbiter, heat(4), 1.0)
    arbiter.move([heat(3)], time + 1.0)
    assert arbiter.move([heat(4)], time + 2.0).wait_s == 40.0
    # The same rung, reached by nothing but the first move of a new policy, falls again.
    arbiter.move([heat(3)], time + 3.0)
    assert arbiter.move([heat(4)], time + 4.0).wait_s == 40.0


def test_back_off_is_forgotten_after_a_time_without_failure() -> None:
    arbiter = make_arbiter(3)
    time = raise_once(arbiter, heat(4), 1.0)
    failed = time + 1.0
    arbiter.move([heat(3)], failed)
    assert arbiter.move([heat(4)], failed + 1799.0).wait_s == 40.0
    arbiter.move([heat(3)], failed + 1799.5)
    assert arbiter.move([heat(4)], failed + 1800.0).wait_s == 20.0


def test_the_next_rung_that_fails_waits_longer_than_the_one_above_did() -> None:
    """While a device warms up, what it can hold moves down."""
    arbiter = make_arbiter(3)
    time = raise_once(arbiter, heat(4), 1.0)
    arbiter.move([heat(3)], time + 1.0)
    time = raise_once(arbiter, heat(4), time + 2.0, 40.0)
    arbiter.move([heat(3)], time + 1.0)
    arbiter.move([heat(2)], time + 3.0)
    # A rung that has not failed waits as ever, ...
    time = raise_once(arbiter, heat(3), time + 4.0, 20.0)
    arbiter.move([heat(2)], time + 1.0)
    # ... and once it has, twice as long as any.
    assert arbiter.move([heat(3)], time + 2.0).wait_s == 160.0


# Rungs that cost the same -------------------------------------------------------------------------

ALIKE = build_ladder(LEVELS, POLICY, Profile.from_seconds(SLOW_CPU, 2.0, 5.0))
"""2 bits at 7.5, 15 and 30 frames a second, and 4, 6 and 8 bits, which fill the CPU."""


def alike_arbiter(rung: int) -> Arbiter:
    arbiter = Arbiter(ALIKE, POLICY.stability, limited=False)
    arbiter.move([heat(rung)], 0.0)
    return arbiter


def test_rungs_that_cost_the_same_are_one_step() -> None:
    arbiter = alike_arbiter(TOP)
    arbiter.move([heat(1)], 1.0)
    assert arbiter.rung == 2, "4 and 6 bits would save nothing"
    arbiter.move([heat(1)], 3.0)
    assert arbiter.rung == 1
    arbiter = alike_arbiter(2)
    assert arbiter.move([FREE], 1.0).wait_s == 20.0
    arbiter.move([FREE], 21.0)
    assert arbiter.rung == TOP


def test_a_cap_within_a_step_is_kept_to() -> None:
    arbiter = alike_arbiter(TOP)
    slow = Cap("deadline", 3, "slow")
    arbiter.move([slow], 1.0)
    assert arbiter.rung == 4, "of levels one after the other"
    arbiter.move([slow], 3.0)
    assert arbiter.rung == 3
    arbiter.move([heat(2)], 5.0)
    arbiter.move([slow], 6.0)
    arbiter.move([slow], 26.0)
    assert arbiter.rung == 3, "no higher than it allows"
    arbiter.move([Cap("deadline", 4, "slow")], 30.0)
    arbiter.move([Cap("deadline", 4, "slow")], 50.0)
    assert arbiter.rung == 4


def test_a_step_that_is_taken_back_waits_longer_wherever_in_it_one_was() -> None:
    arbiter = alike_arbiter(2)
    arbiter.move([heat(TOP)], 1.0)
    arbiter.move([heat(TOP)], 21.0)
    assert arbiter.rung == TOP
    arbiter.move([heat(2)], 30.0)
    assert arbiter.rung == 2 and arbiter.move([heat(4)], 31.0).wait_s == 40.0
    assert arbiter.state(31.0)["dwell"] == [[4, 30.0, 40.0]]


# Another policy, a fall, a restart ---------------------------------------------------------------


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
