"""The slow-down filter: its numbers, and that 95 % of frames keep to what it predicts."""

from __future__ import annotations

import math
import random

import pytest
from governor_samples import a_policy

from edge_app.governor.caps import DEADLINE_QUANTILE, deadline_cap
from edge_app.governor.ladder import build_ladder
from edge_app.governor.slowdown import Slowdown

LADDER = build_ladder((2, 4, 6, 8), a_policy())


def filtered(*ratios: float) -> Slowdown:
    slowdown = Slowdown()
    for ratio in ratios:
        slowdown.observe(ratio)
    return slowdown


def test_before_any_frame() -> None:
    assert Slowdown().mean == 1.0
    assert Slowdown().deviation == pytest.approx(math.sqrt(0.02))


def test_one_frame_by_hand() -> None:
    slowdown = filtered(1.2)
    prior = 0.01 + 0.01 * 0.01
    gain = prior / (prior + 0.01)
    noise = 0.01 + 0.05 * (0.2 * 0.2 - 0.01)
    assert slowdown.mean == pytest.approx(1.0 + gain * 0.2, rel=1e-12)
    assert slowdown.deviation == pytest.approx(math.sqrt((1.0 - gain) * prior + noise), rel=1e-12)


def test_two_frames_by_hand() -> None:
    mean, variance, noise = 1.0, 0.01, 0.01
    for ratio in (1.2, 0.9):
        prior = variance + 0.01 * noise
        gain = prior / (prior + noise)
        innovation = ratio - mean
        mean, variance = mean + gain * innovation, (1.0 - gain) * prior
        noise += 0.05 * (innovation * innovation - noise)
    slowdown = filtered(1.2, 0.9)
    assert slowdown.mean == pytest.approx(mean, rel=1e-12)
    assert slowdown.deviation == pytest.approx(math.sqrt(variance + noise), rel=1e-12)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_outliers_count_as_four_deviations(sign: float) -> None:
    start = 3.0
    slowdown, bounded = Slowdown(), Slowdown()
    slowdown.mean = bounded.mean = start
    farthest = 4.0 * slowdown.deviation
    slowdown.observe(start + sign * 2.9)
    bounded.observe(start + sign * farthest)
    assert slowdown.mean == pytest.approx(bounded.mean, rel=1e-12)
    assert slowdown.deviation == pytest.approx(bounded.deviation, rel=1e-12)
    inside = Slowdown()
    inside.mean = start
    inside.observe(start + sign * 0.99 * farthest)
    assert abs(inside.mean - start) < abs(bounded.mean - start)


def test_noise_never_vanishes() -> None:
    slowdown = filtered(*[1.0] * 5000)
    assert slowdown.deviation >= 0.01
    assert slowdown.deviation == pytest.approx(0.0105, abs=0.0005)


def test_tiny_ratios_are_ratios() -> None:
    assert filtered(1e-9).mean < 1.0


@pytest.mark.parametrize("mean", [1.0, 1.7])
@pytest.mark.parametrize("share", [0.03, 0.15])
def test_95_percent_of_frames_keep_to_the_prediction(mean: float, share: float) -> None:
    """Normally distributed slow-downs: of what is predicted before each frame."""
    rng, slowdown, late, frames = random.Random(5), Slowdown(), 0, 20_000
    for index in range(frames + 500):
        ratio = rng.gauss(mean, share * mean)
        if index >= 500:
            late += ratio > slowdown.mean + DEADLINE_QUANTILE * slowdown.deviation
        slowdown.observe(ratio)
    assert 0.035 < late / frames < 0.065


def test_the_deadline_cap_keeps_95_percent_of_frames_in_time() -> None:
    """At the level that it allows, closed loop, on a machine twice as slow as its profile."""
    profile, deadline = {2: 0.010, 4: 0.020, 6: 0.030, 8: 0.040}, 0.080
    rng, slowdown, rung, late, frames = random.Random(6), Slowdown(), LADDER.top, 0, 5000
    for index in range(frames + 200):
        cap = deadline_cap(slowdown.mean, slowdown.deviation, profile, rung, LADDER, deadline)
        rung = cap.rung
        ratio = rng.gauss(2.0, 0.15)
        slowdown.observe(ratio)
        late += index >= 200 and profile[LADDER.rungs[rung].bits] * ratio > deadline
    assert LADDER.rungs[rung].bits == 6
    assert late / frames < 0.05


@pytest.mark.parametrize(
    ("slowdown", "deviation", "current", "deadline", "bits"),
    [
        (2.0, 0.0, 5, 0.080, 8),
        (2.0, 0.0, 5, 0.0799, 6),
        (2.0, 0.0, 4, 0.0889, 8),
        (2.0, 0.0, 4, 0.0888, 6),
        (1.0, 0.5, 5, 0.0729001, 8),
        (1.0, 0.5, 5, 0.0728, 6),
    ],
)
def test_deadline_to_the_edge(
    slowdown: float, deviation: float, current: int, deadline: float, bits: int
) -> None:
    profile = {2: 0.010, 4: 0.020, 6: 0.030, 8: 0.040}
    cap = deadline_cap(slowdown, deviation, profile, current, LADDER, deadline)
    assert LADDER.rungs[cap.rung].bits == bits


def test_what_the_deadline_cap_says() -> None:
    profile = {2: 0.010, 4: 0.020, 6: 0.030, 8: 0.040}
    assert deadline_cap(1.0, 0.0, profile, 5, LADDER, 0.0).why == "no deadline"
    assert (
        deadline_cap(1.0, 0.0, profile, 5, LADDER, 0.1).why
        == "frames take 1.00 times their profile"
    )
    cap = deadline_cap(2.0, 0.1, profile, 5, LADDER, 0.05)
    assert (cap.name, cap.urgent, LADDER.rungs[cap.rung].bits) == ("deadline", False, 4)
    assert cap.why == "frames take 2.00 times their profile; 6 bits need 64.9 ms of 50 ms"
