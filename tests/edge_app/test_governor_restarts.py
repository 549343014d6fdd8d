"""What the governor remembers of the process before it."""

from __future__ import annotations

import json
import math

import pytest
from governor_samples import (
    HOT,
    LEVELS,
    make_governor,
    make_sample,
    restarted,
    run,
    slow_sample,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.governor.state import age, finite, number, rows, since, table, text


def test_crash_loop_neither_raises_nor_resets_the_fail_safe() -> None:
    governor = make_governor()
    run(governor, make_sample, 0, 10)
    run(governor, lambda t: make_sample(t, None), 10, 30)
    for _ in range(5):
        governor = restarted(governor)
        decisions = run(governor, lambda t: make_sample(t, None), 0, 5)
        assert {(decision.bits, decision.cause) for decision in decisions} == {(2, "failsafe")}
        decisions = run(governor, make_sample, 5, 50)
        assert {decision.bits for decision in decisions} == {2}


def test_crash_loop_does_not_climb_by_restarting() -> None:
    governor = make_governor()
    run(governor, lambda t: make_sample(t, HOT), 0, 60)
    assert governor.level == 2
    for _ in range(5):
        governor = restarted(governor)
        assert governor.step(make_sample(0.0)).bits == 2
    assert [d.bits for d in run(governor, make_sample, 1, 80) if d.changed][-1] == 8


def test_distrust_survives_a_restart() -> None:
    governor = make_governor()
    run(governor, slow_sample(governor, 1.6), 0, 60)
    fresh = restarted(governor)
    decision = fresh.step(make_sample(0.0, 55.0))
    assert decision.distrusted == ("cpu-thermal",)
    assert decision.caps["failsafe"] == 2 and decision.bits == 2


def test_restart_under_another_policy() -> None:
    governor = make_governor()
    run(governor, make_sample, 0, 5)
    fresh = restarted(governor, "levels.max_bits=4")
    assert fresh.step(make_sample(0.0)).bits == 4


def test_state_before_the_first_step() -> None:
    assert restarted(make_governor()).step(make_sample(0.0)).rung == 0


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(["bits", "fps"]), inner, max_size=4)
    ),
    max_leaves=12,
)
PARTS = st.fixed_dictionaries(
    {
        "schema": st.just(1),
        "arbiter": ANYTHING
        | st.fixed_dictionaries(
            {key: ANYTHING for key in ("bits", "fps", "held_by", "failed_s", "dwell", "raised")}
        ),
        "thermal": ANYTHING
        | st.lists(
            st.fixed_dictionaries({key: ANYTHING for key in ("zone", "silent_s", "lost")}),
            max_size=3,
        ),
        "throttle": ANYTHING
        | st.fixed_dictionaries(
            {
                key: ANYTHING
                for key in ("steps", "hidden_s", "lie_s", "times", "distrusted", "detail")
            }
        ),
    }
)


@settings(deadline=None, max_examples=30)
@given(ANYTHING | PARTS)
def test_any_state_can_be_restored(state: object) -> None:
    governor = make_governor()
    governor.restore(state)
    for decision in run(governor, make_sample, 0, 3):
        assert decision.bits in LEVELS and decision.why
    json.dumps(governor.state(), allow_nan=False)


@pytest.mark.parametrize("state", [None, [], {}, {"schema": 2}, {"schema": "1"}])
def test_state_of_another_kind_is_ignored(state: object) -> None:
    governor = make_governor()
    run(governor, lambda t: make_sample(t, HOT), 0, 30)
    if isinstance(state, dict) and state:
        state = {**governor.state(), **state}
    fresh = make_governor()
    fresh.restore(state)
    assert fresh.step(make_sample(0.0)).bits == 8


def test_helpers_of_the_state() -> None:
    assert age(-math.inf, 5.0) is None and age(math.inf, 5.0) is None
    assert age(3.0, 5.0004) == 2.0 and age(6.0, 5.0) == 0.0
    assert since(2.5, 5.0) == 2.5 and since(0, 5.0) == 5.0 and since(31536000.0, 0.0) == -31536000.0
    assert since(31536000.1, 0.0) == since(-0.1, 0.0) == since(None, 0.0) == -math.inf
    assert finite(3) == 3.0 and finite(2.5) == 2.5
    for nonsense in (True, False, "3", None, math.nan, math.inf, [3], 10**400):
        assert finite(nonsense) is None
    assert number(3, 3, 4) == 3.0 and number(4, 3, 4) == 4.0
    assert number(2.999, 3, 4) is None and number(4.001, 3, 4) is None
    assert text("a") == "a" and text(3) == "" and text(None) == ""
    assert table({"a": 1, 3: 2}) == {"a": 1} and table([("a", 1)]) == {} and table(None) == {}
    assert rows([[1, 2], (3, 4), [5], 6, "ab"], 2) == [[1, 2], [3, 4]]
    assert rows("ab", 1) == [] and rows(([1],), 1) == [[1]]
