"""The arbiter to the tick: when a rung may move, how far, and whose doing it is."""

from __future__ import annotations

import pytest
from arbiter_samples import FREE, LADDER, POLICY, TOP, blind, heat, load, make_arbiter, raise_once
from governor_samples import LEVELS, SLOW_CPU

from edge_app.governor.arbiter import Arbiter
from edge_app.governor.caps import Cap
from edge_app.governor.energy import Profile
from edge_app.governor.ladder import build_ladder


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
