"""Second runs: who gets one, and what they cost."""

from __future__ import annotations

import math

import pytest
from governor_samples import a_policy
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.governor.demand import Bucket, Escalation
from edge_app.governor.energy import LevelCost, Profile

PROFILE = Profile(
    {2: LevelCost(0.010, 0.03), 4: LevelCost(0.020, 0.06), 8: LevelCost(0.040, 0.12)}, 2.0, "test"
)
CLOSE, CLEAR = 0.1, 0.9


def make_escalation(*overrides: str, profile: Profile = PROFILE, now: float = 0.0) -> Escalation:
    return Escalation(a_policy(*overrides), profile, now)


def granted(escalation: Escalation, now: float, tries: int, ceiling: int = 8) -> int:
    return sum(escalation.decide(2, ceiling, CLOSE, now) is not None for _ in range(tries))


def test_bucket() -> None:
    bucket = Bucket(1.0, 3.0)
    bucket.fill(1.5)
    assert bucket.content == 2.5
    bucket.fill(1.0)
    assert bucket.content == 3.0


@pytest.mark.parametrize(
    ("bits", "ceiling", "margin", "again"),
    [
        (2, 8, CLOSE, 8),
        (2, 4, CLOSE, 4),
        (4, 8, CLOSE, 8),
        (4, 4, CLOSE, None),
        (8, 4, CLOSE, None),
        (2, 8, CLEAR, None),
        (2, 8, 0.15, None),
        (2, 8, math.nextafter(0.15, 0.0), 8),
        (2, 8, 0.0, 8),
        (2, 8, math.nan, None),
    ],
)
def test_close_calls_run_again_at_the_ceiling(
    bits: int, ceiling: int, margin: float, again: int | None
) -> None:
    escalation = make_escalation()
    assert escalation.decide(bits, ceiling, margin, 0.0) == again
    assert escalation.granted == (again is not None)


def test_a_burst_and_then_so_many_a_second() -> None:
    escalation = make_escalation("confidence.burst=4", "confidence.max_per_s=2.0", now=100.0)
    assert granted(escalation, 100.0, 20) == 4
    assert granted(escalation, 100.49, 20) == 0
    assert granted(escalation, 100.5, 20) == 1
    assert granted(escalation, 101.5, 20) == 2
    assert granted(escalation, 1000.0, 20) == 4
    assert escalation.granted == 11


def test_a_refusal_costs_nothing() -> None:
    escalation = make_escalation("confidence.burst=1", "confidence.max_per_s=0")
    assert escalation.decide(2, 8, CLEAR, 0.0) is None
    assert escalation.decide(8, 8, CLOSE, 0.0) is None
    assert escalation.decide(2, 8, CLOSE, 0.0, slowdown=99.0) is None
    escalation.spare_w = 0.0
    assert escalation.decide(2, 8, CLOSE, 0.0) is None
    escalation.spare_w = None
    assert granted(escalation, 0.0, 9) == 1
    assert granted(escalation, 1e6, 9) == 0


def test_time_that_goes_backwards_fills_nothing() -> None:
    escalation = make_escalation("confidence.burst=1", "confidence.max_per_s=1.0", now=50.0)
    assert granted(escalation, 50.0, 9) == 1
    assert granted(escalation, 0.0, 9) == 0
    assert granted(escalation, 50.9, 9) == 0
    assert granted(escalation, 51.0, 9) == 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(1, 8)), min_size=1, max_size=40),
    st.integers(1, 6),
    st.floats(0.0, 5.0),
)
def test_no_window_has_more_than_the_bucket_gives(
    steps: list[tuple[float, int]], burst: int, rate: float
) -> None:
    escalation = make_escalation(f"confidence.burst={burst}", f"confidence.max_per_s={rate}")
    now, seen = 0.0, [(0.0, 0)]
    for wait, tries in steps:
        now += wait
        granted(escalation, now, tries)
        seen.append((now, escalation.granted))
    for index, (start, before) in enumerate(seen):
        for end, after in seen[index + 1 :]:
            # A window that begins at a look does not hold what was granted in it.
            assert after - before <= burst + rate * (end - start) + 1e-6


@pytest.mark.parametrize(
    ("slowdown", "deviation", "allowed"),
    [(2.0, 0.0, True), (2.0001, 0.0, False), (1.0, 0.6, True), (1.0, 0.61, False)],
)
def test_both_runs_must_end_before_the_deadline(
    slowdown: float, deviation: float, allowed: bool
) -> None:
    # 10 ms and 40 ms of 100 ms.
    escalation = make_escalation("frame.deadline_ms=100")
    assert (escalation.decide(2, 8, CLOSE, 0.0, slowdown, deviation) == 8) is allowed


def test_no_deadline_and_no_profile() -> None:
    unhurried = make_escalation("frame.deadline_ms=0")
    assert unhurried.decide(2, 8, CLOSE, 0.0, slowdown=99.0) == 8
    nothing = Profile({}, 2.0, "test")
    assert make_escalation(profile=nothing).decide(2, 8, CLOSE, 0.0) is None
    blind = make_escalation("frame.deadline_ms=0", profile=nothing)
    blind.spare_w = 0.0
    assert blind.decide(2, 8, CLOSE, 0.0) == 8


def test_energy_is_paid_from_what_is_spare() -> None:
    escalation = make_escalation("confidence.max_per_s=1000", "confidence.burst=3")
    escalation.spare_w = 0.06
    assert granted(escalation, 0.0, 9) == 0, "nothing has been saved yet"
    assert granted(escalation, 1.9, 9) == 0
    assert granted(escalation, 2.0, 9) == 1
    assert granted(escalation, 4.0, 9, ceiling=4) == 2
    # It saves for a burst of the dearest level and no more.
    assert granted(escalation, 1000.0, 9) == 3
    assert granted(escalation, 1001.9, 9) == 0
    escalation.spare_w = 0.0
    assert granted(escalation, 9999.0, 9) == 0
    escalation.spare_w = None
    assert granted(escalation, 9999.0, 9) == 3


def test_another_policy_keeps_what_is_in_the_buckets() -> None:
    escalation = make_escalation("confidence.burst=8", "confidence.max_per_s=0")
    escalation.spare_w = 1.0
    escalation.decide(2, 2, CLOSE, 0.4)
    narrow = a_policy(
        "confidence.burst=3",
        "confidence.max_per_s=0",
        "confidence.escalate_below=0.05",
        "frame.deadline_ms=0",
    )
    escalation.replace(narrow, PROFILE)
    assert escalation.decide(2, 8, 0.06, 0.4) is None
    assert escalation.decide(2, 8, 0.04, 0.4, slowdown=99.0) == 8
    escalation.spare_w = None
    assert granted(escalation, 0.4, 9) == 0, "0.1 is no close call any more"
    wide = a_policy("confidence.burst=9", "confidence.max_per_s=0")
    escalation.replace(wide, PROFILE)
    assert granted(escalation, 0.4, 9) == 2, "a reload fills nothing"


def test_a_reload_keeps_the_joules_that_fit() -> None:
    escalation = make_escalation("confidence.burst=4", "confidence.max_per_s=0")
    escalation.spare_w = 1.0
    escalation.decide(2, 2, CLOSE, 100.0)
    escalation.spare_w = 0.0
    escalation.replace(a_policy("confidence.burst=2"), PROFILE)
    escalation.replace(a_policy("confidence.burst=4"), PROFILE)
    assert granted(escalation, 200.0, 9) == 2
