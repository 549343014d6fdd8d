"""What levels cost, and what has run."""

from __future__ import annotations

import math

import pytest

from edge_app.governor.energy import LevelCost, Profile, Usage

PROFILE = Profile({2: LevelCost(0.010, 0.03), 6: LevelCost(0.040, 0.20)}, 1.5, "test")


def test_the_stated_model() -> None:
    profile = Profile.from_seconds({2: 0.010, 8: 0.040, 4: 0.0, 6: math.nan, 3: -1.0}, 2.0, 3.0)
    assert profile.levels == {2: LevelCost(0.010, pytest.approx(0.03)), 8: LevelCost(0.040, 0.12)}
    assert profile.idle_w == 2.0 and profile.source == "stated model"
    assert profile.seconds == {2: 0.010, 8: 0.040}
    assert Profile.from_seconds({}, 1.0, 1.0, "other").source == "other"


@pytest.mark.parametrize(
    ("bits", "fps", "watts"),
    [
        (2, 10.0, 1.8),
        (2, 0.5, 1.515),
        (2, 99.0, 1.5 + 2.97),
        (2, 101.0, 4.5),  # there is no time for more than 100 frames
        (2, 0.0, 4.5),
        (6, 10.0, 3.5),
        (6, 0.0, 6.5),
        (4, 10.0, 3.5),  # as the next level above it
        (8, 10.0, 3.5),  # as the highest
    ],
)
def test_watts(bits: int, fps: float, watts: float) -> None:
    assert PROFILE.watts(bits, fps) == pytest.approx(watts)


def test_a_profile_of_nothing_idles() -> None:
    nothing = Profile({}, 1.5, "none")
    assert nothing.cost(2) is None
    assert nothing.watts(2, 30.0) == 1.5


def test_usage_is_told_in_frames_and_watts() -> None:
    usage = Usage(PROFILE)
    usage.add(2)
    assert usage.since_last(10.0) is None
    assert usage.since_last(10.0) is None
    for _ in range(20):
        usage.add(2)
    usage.add(6, again=True)
    assert usage.since_last(10.0) is None, "no time has passed"
    assert usage.since_last(9.0) is None
    use = usage.since_last(12.0)
    assert use is not None
    assert use.fps == 10.0
    assert use.watts == pytest.approx(1.5 + (20 * 0.03 + 0.20) / 2.0)
    idle = usage.since_last(13.0)
    assert idle is not None and (idle.fps, idle.watts) == (0.0, 1.5)


def test_usage_of_an_unknown_model_counts_frames() -> None:
    usage = Usage(Profile({}, 1.5, "none"))
    usage.since_last(0.0)
    usage.add(4)
    use = usage.since_last(1.0)
    assert use is not None and (use.fps, use.watts) == (1.0, 1.5)
