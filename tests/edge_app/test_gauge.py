"""What is left between the steps of a gauge, and how fast it falls."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.governor.gauge import KNOWN, MEMORY, PRIOR, Gauge

FULL_J = 10_000.0
PER_JOULE = 1.0 / FULL_J


def stated(full_j: float | None = FULL_J) -> Gauge:
    gauge = Gauge()
    gauge.full_j = full_j
    return gauge


def test_a_stated_capacity_is_believed_until_something_is_seen() -> None:
    assert stated().per_joule == pytest.approx(PER_JOULE)
    assert Gauge().per_joule is None
    assert not stated().learned


def test_follows_the_model_from_the_reading_down_to_the_next_step() -> None:
    gauge = stated()
    assert gauge.level is None
    gauge.spend(1.0)
    assert gauge.level is None
    gauge.read(0.50)
    assert gauge.level == 0.50
    gauge.spend(40.0)
    assert gauge.level == pytest.approx(0.496)
    gauge.read(0.50)
    assert gauge.level == pytest.approx(0.496)
    gauge.spend(90.0)
    gauge.read(0.50)
    assert gauge.level == pytest.approx(0.49), "less would have been a step"
    gauge.read(0.49)
    assert gauge.level == pytest.approx(0.49)
    gauge.spend(20.0)
    gauge.read(0.48)
    assert gauge.level == pytest.approx(0.48), "the step came early"


def test_never_below_nothing() -> None:
    gauge = stated()
    gauge.read(0.004)
    gauge.spend(1000.0)
    assert gauge.level == 0.0


@pytest.mark.parametrize("step", [0.02, 0.049, 0.005])
def test_a_coarse_gauge_is_given_the_steps_that_it_makes(step: float) -> None:
    gauge = stated()
    gauge.read(0.80 + 2 * step)
    gauge.read(0.80 + step)
    gauge.read(0.80)
    gauge.spend(2.0 * max(step, 0.01) * FULL_J)
    gauge.read(0.80)
    assert gauge.level == pytest.approx(0.80 - max(step, 0.01))


@pytest.mark.parametrize(
    ("reading", "level"),
    [
        (0.449, 0.449),  # a jump down
        (0.451, 0.451),  # a large step
        (0.505, 0.500),  # noise
        (0.549, 0.539),  # much noise: at most a step below what it says
        (0.551, 0.551),  # a jump up
    ],
)
def test_jumps_and_noise(reading: float, level: float) -> None:
    gauge = stated()
    gauge.read(0.51)
    gauge.read(0.50)
    gauge.read(reading)
    assert gauge.level == pytest.approx(level)


def test_a_jump_teaches_nothing() -> None:
    gauge = stated()
    gauge.read(0.9)
    gauge.spend(50.0)
    gauge.read(0.89)
    gauge.spend(50.0)
    gauge.read(0.83)
    gauge.spend(50.0)
    gauge.read(0.82)
    assert gauge.per_joule == pytest.approx(PER_JOULE)
    assert not gauge.learned


def test_learns_the_rate_from_whole_steps_only() -> None:
    gauge = stated(None)
    gauge.read(0.90)
    gauge.spend(3.0)
    gauge.read(0.89)  # The first step began before anybody looked.
    assert gauge.per_joule is None
    gauge.spend(200.0)
    gauge.read(0.88)
    assert gauge.per_joule is None
    gauge.spend(200.0)
    gauge.read(0.87)
    assert gauge.per_joule is None, "what fell first has already faded a little"
    gauge.spend(200.0)
    gauge.read(0.86)
    assert gauge.learned
    assert gauge.per_joule == pytest.approx(0.01 / 200.0)


def test_fading_of_what_was_seen_and_of_what_was_stated() -> None:
    gauge = stated()
    gauge.read(0.90)
    gauge.read(0.89)
    gauge.spend(200.0)
    gauge.read(0.87)
    kept = math.exp(-0.02 / MEMORY)
    prior = PRIOR * kept
    assert gauge.per_joule == pytest.approx((0.02 + prior) / (200.0 + prior * FULL_J))
    gauge.spend(50.0)
    gauge.read(0.84)
    more = math.exp(-0.03 / MEMORY)
    fallen, spent = 0.02 * more + 0.03 + prior * more, 200.0 * more + 50.0 + prior * more * FULL_J
    assert gauge.per_joule == pytest.approx(fallen / spent)


def test_known_is_reached_exactly() -> None:
    gauge = stated(None)
    gauge.read(0.90)
    gauge.read(0.89)
    gauge.spend(200.0)
    gauge.read(0.89 - KNOWN + 1e-9)
    assert not gauge.learned
    other = stated(None)
    other.read(0.90)
    other.read(0.89)
    other.spend(200.0)
    other.read(0.89 - KNOWN - 1e-9)
    assert other.learned


def test_a_fall_for_no_energy_teaches_nothing() -> None:
    gauge = stated()
    gauge.read(0.90)
    gauge.read(0.89)
    gauge.read(0.88)
    assert gauge.per_joule == pytest.approx(PER_JOULE)


def test_a_gauge_that_stands_still_is_not_believed_for_ever() -> None:
    gauge = stated()
    gauge.read(0.50)
    gauge.spend(299.9)
    gauge.read(0.50)
    assert not gauge.stuck
    assert gauge.level == pytest.approx(0.49)
    gauge.spend(0.2)
    assert gauge.stuck
    gauge.read(0.50, in_use=False)
    assert gauge.level == pytest.approx(0.49)
    gauge.spend(200.0)
    gauge.read(0.50)
    assert gauge.level == pytest.approx(0.47)
    gauge.read(0.49)
    assert not gauge.stuck
    assert gauge.level == pytest.approx(0.48)
    assert not Gauge().stuck


def test_restart_keeps_what_was_learned_and_unlearn_does_not() -> None:
    gauge = stated(None)
    for reading in (0.90, 0.89, 0.87, 0.85, 0.83):
        gauge.spend(100.0)
        gauge.read(reading)
    learned = gauge.per_joule
    assert learned == pytest.approx(0.02 / 100.0)
    gauge.spend(99.0)
    gauge.restart()
    assert gauge.level is None and gauge.per_joule == learned
    gauge.read(0.70)
    assert gauge.level == 0.70
    gauge.read(0.69)
    assert gauge.per_joule == learned, "the step after a restart is part of one"
    gauge.unlearn()
    assert gauge.level is None and gauge.per_joule is None and not gauge.learned
    gauge.full_j = FULL_J
    assert gauge.per_joule == pytest.approx(PER_JOULE)


ROUNDINGS: dict[str, Callable[[float], float]] = {
    "down": lambda charge: math.floor(charge * 100) / 100,
    "up": lambda charge: math.ceil(charge * 100) / 100,
    "to the nearest": lambda charge: round(charge, 2),
}


@settings(deadline=None, max_examples=15)
@given(
    st.sampled_from(sorted(ROUNDINGS)),
    st.floats(0.3, 1.0),
    st.floats(0.6, 1.6),
    st.sampled_from([1, 7, 60]),
)
def test_stays_within_two_steps_of_the_truth_whatever_is_rounded(
    rounding: str, charge: float, error: float, every: int
) -> None:
    gauge = stated()
    shown = ROUNDINGS[rounding](charge)
    steps = 0
    late = (every + 1) * error * PER_JOULE
    wrong = 0.01 * max(0.0, 1.0 - 1.0 / error)  # within a step the model is all there is
    for second in range(1500):
        charge -= error * PER_JOULE
        if second % every == 0:
            before, shown = shown, ROUNDINGS[rounding](charge)
            steps += shown != before
        gauge.spend(1.0)
        gauge.read(min(1.0, shown))
        assert gauge.level is not None
        if steps >= 1:  # Before the first step nobody knows where in it the charge is.
            assert -late - wrong <= charge - gauge.level <= 0.02 + late
    assert gauge.per_joule is not None
    if steps >= 10:
        assert gauge.per_joule == pytest.approx(error * PER_JOULE, rel=0.12)


def noisy_day(
    deviation: float, model: float = 1.0, seed: int = 3
) -> tuple[Gauge, list[float], float]:
    """From full to a third in two hours, by a gauge that says something else every ten seconds and a
    model that has ``model`` times the joules. The errors of the level in its second half, and how far
    it went up and down in all."""
    rng, gauge, truth, errors, travelled = random.Random(seed), stated(), 1.0, [], 0.0
    watts, said = FULL_J * (2.0 / 3.0) / 7200.0, 1.0
    before = 1.0
    for second in range(7200):
        truth -= watts / FULL_J
        gauge.spend(watts * model)
        if second % 10 == 0:
            said = round(min(1.0, truth + rng.gauss(0.0, deviation)), 2)
        gauge.read(said, True, 1.0)
        assert gauge.level is not None
        travelled += abs(gauge.level - before)
        before = gauge.level
        if second > 3600:
            errors.append(gauge.level - truth)
    return gauge, errors, travelled


def test_a_noisy_gauge_is_followed_on_average() -> None:
    _, errors, travelled = noisy_day(0.01)
    assert max(map(abs, errors)) < 0.006 and abs(sum(errors)) / len(errors) < 0.003
    assert travelled < 0.75, "down by two thirds, and hardly ever up"
    # The model is wrong by a quarter: learned, whatever the noise.
    for model in (0.75, 1.25):
        gauge, errors, _ = noisy_day(0.01, model)
        assert max(map(abs, errors)) < 0.012
        assert gauge.per_joule == pytest.approx(PER_JOULE / model, rel=0.06)


def test_noise_is_a_second_rise_by_more_than_a_step() -> None:
    gauge = stated()
    for charge in (0.80, 0.815, 0.80, 0.815, 0.80):
        gauge.read(charge, True, 10.0)
    assert gauge.level == 0.80 and not gauge.state()["noisy"], "rounding"
    gauge.read(0.816, True, 10.0)
    assert gauge.level == pytest.approx(0.806) and not gauge.state()["noisy"], "once is no noise"
    gauge.read(0.80, True, 10.0)
    gauge.read(0.816, True, 890.0)
    assert gauge.state()["noisy"]
    drawn = 0.80 + 0.016 * (1.0 - math.exp(-890.0 / 300.0))
    assert gauge.level == pytest.approx(drawn)
    gauge.read(0.78, True, 900.0)
    drawn += (0.78 - drawn) * (1.0 - math.exp(-900.0 / 300.0))
    assert gauge.level == pytest.approx(drawn)
    gauge.read(0.77, True, 0.001)
    assert gauge.level == pytest.approx(0.77) and not gauge.state()["noisy"], "as any other"
    late = stated()
    for charge, step_s in ((0.80, 1.0), (0.82, 1.0), (0.80, 1.0), (0.82, 899.001)):
        late.read(charge, True, step_s)
    assert not late.state()["noisy"], "two rises that are far apart"


def test_a_noisy_gauge_that_has_changed_its_mind_is_believed() -> None:
    gauge = stated()
    for charge in (0.80, 0.82, 0.80, 0.82):
        gauge.read(charge, True, 10.0)
    gauge.read(0.70, True, 10.0)
    assert gauge.level == 0.70
    gauge.read(0.90, True, 10.0)
    assert gauge.level == 0.90


def test_what_was_learned_of_noise_is_forgotten_once() -> None:
    gauge = stated()
    for charge in (0.80, 0.79, 0.77, 0.79, 0.77):
        gauge.spend(1.0)
        gauge.read(charge, True, 10.0)
    assert gauge.per_joule != pytest.approx(PER_JOULE)
    gauge.read(0.79, True, 10.0)
    assert gauge.per_joule == pytest.approx(PER_JOULE) and not gauge.learned
    other = stated()
    assert other.restore({"fallen": 0.02, "spent_j": 100.0, "prior": 0.0, "noisy": True})
    other.read(0.80, True, 1.0)
    other.read(0.82, True, 10.0)
    assert other.per_joule == pytest.approx(0.02 / 100.0), "after a restart it is known to be noisy"
    assert other.state()["noisy"] is True and stated().state()["noisy"] is False
    calm = stated()
    assert calm.restore({"fallen": 0.02, "spent_j": 100.0, "prior": 0.0})
    calm.read(0.80, True, 1.0)
    calm.read(0.82, True, 10.0)
    assert calm.state()["noisy"] is False, "its first rise"


def test_state_survives_and_nonsense_does_not() -> None:
    gauge = stated()
    for reading in (0.90, 0.89, 0.87, 0.85):
        gauge.spend(100.0)
        gauge.read(reading)
    other = stated()
    assert other.restore(gauge.state())
    assert other.per_joule == gauge.per_joule and other.level is None
    sound = gauge.state()
    for key, value in [
        ("fallen", -0.1),
        ("fallen", 1.1),
        ("fallen", "x"),
        ("fallen", 0.0),
        ("spent_j", 0.0),
        ("spent_j", -1.0),
        ("spent_j", math.nan),
        ("prior", -0.001),
        ("prior", PRIOR * 1.01),
        ("prior", None),
    ]:
        fresh = stated()
        assert not fresh.restore(sound | {key: value})
        assert fresh.per_joule == pytest.approx(PER_JOULE)
    for state in (None, [], "x", {}):
        assert not stated().restore(state)
    nothing = stated()
    assert nothing.restore(Gauge().state())
    assert nothing.per_joule == pytest.approx(PER_JOULE)
