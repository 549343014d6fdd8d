"""The fit of measured power to the profile's, step by step and in the long run."""

from __future__ import annotations

import math

import pytest

from edge_app.governor.power_fit import PowerFit


def test_one_rung_alone_is_a_plain_ratio() -> None:
    fit = PowerFit()
    assert fit.predict(3.0) == 3.0 and fit.gain == 1.0 and fit.offset_w == 0.0
    for _ in range(600):
        fit.update(6.0, 2.0, 3.0, 1.0)
    assert fit.gain == pytest.approx(1.2)
    assert fit.predict(3.0) == pytest.approx(6.0)
    assert fit.predict(0.0) == pytest.approx(2.4)


def test_two_rungs_tell_what_frames_take_from_what_the_device_takes() -> None:
    fit = PowerFit()
    for block in range(12):
        active = (1.0, 2.0)[block % 2]
        for _ in range(300):
            fit.update(4.0 + 0.5 * active, 2.0, active, 1.0)
    assert fit.gain == pytest.approx(0.5, rel=0.1)
    assert fit.offset_w == pytest.approx(4.0, rel=0.03)
    assert fit.predict(0.0) == pytest.approx(4.0, rel=0.03)


def test_what_the_rest_of_the_device_takes_is_followed_within_minutes() -> None:
    fit = PowerFit()
    for _ in range(600):
        fit.update(5.0, 2.0, 3.0, 1.0)
    for _ in range(60):
        fit.update(7.0, 2.0, 3.0, 1.0)
    assert 6.2 < fit.predict(3.0) < 6.4
    for _ in range(240):
        fit.update(7.0, 2.0, 3.0, 1.0)
    assert fit.predict(3.0) == pytest.approx(7.0, rel=0.01)


@pytest.mark.parametrize(("slope", "bound"), [(-5.0, "low"), (40.0, "high")])
def test_the_gain_stays_within_reason(slope: float, bound: str) -> None:
    fit = PowerFit()
    for block in range(40):
        active = (1.0, 1.2)[block % 2]
        for _ in range(100):
            fit.update(20.0 + slope * (active - 1.0), 2.0, active, 1.0)
    ratio = (20.0 + slope * 0.1) / 3.1
    expected = ratio * (0.25 if bound == "low" else 4.0)
    assert fit.gain == pytest.approx(expected, rel=0.15)


def test_never_predicts_less_than_nothing() -> None:
    fit = PowerFit()
    fit.offset_w, fit.gain = -1.0, 0.5
    assert fit.predict(1.0) == 0.0
    assert fit.predict(4.0) == 1.0


def test_the_fit_step_by_step() -> None:
    fit = PowerFit()
    fit.update(6.0, 2.0, 2.0, 1.0)
    assert (fit.gain, fit.offset_w) == (1.5, 3.0)
    fit.update(9.0, 2.0, 4.0, 60.0)
    fast, slow = 1.0 - math.exp(-1.0), 1.0 - math.exp(-60.0 / 3600.0)
    # Ratio, variance and covariance are of what is 2 W and 3 W from the first look.
    ratio = 1.5
    variance, covariance = (1.0 - slow) * slow * 4.0, (1.0 - slow) * slow * 6.0
    ridge = (0.01 * 6.0) ** 2
    gain = (covariance + ridge * ratio) / (variance + ridge)
    offset = 3.0 + (1.5 - gain) * 4.0
    offset += (9.0 - gain * 4.0 - offset) * fast
    assert fit.gain == pytest.approx(gain, rel=1e-12)
    assert fit.offset_w == pytest.approx(offset, rel=1e-12)
    fit.update(4.5, 2.0, 1.0, 1.0)
    fast, slower = 1.0 - math.exp(-1.0 / 60.0), 1.0 - math.exp(-1.0 / 3600.0)
    active, measured = 1.0 - (2.0 + 2.0 * slow), 4.5 - (6.0 + 3.0 * slow)
    variance = (1.0 - slower) * (variance + slower * active * active)
    covariance = (1.0 - slower) * (covariance + slower * active * measured)
    ridge = (0.01 * 3.0) ** 2
    before = gain
    gain = (covariance + ridge * ratio) / (variance + ridge)
    offset += (before - gain) * 1.0
    offset += (4.5 - gain - offset) * fast
    assert fit.gain == pytest.approx(gain, rel=1e-12)
    assert fit.offset_w == pytest.approx(offset, rel=1e-12)


def test_the_ratio_follows_within_minutes() -> None:
    fit = PowerFit()
    fit.update(5.0, 2.0, 3.0, 1.0)
    fit.update(10.0, 2.0, 3.0, 60.0)
    # One rung alone: the gain is the ratio.
    assert fit.gain == pytest.approx(1.0 + (1.0 - math.exp(-1.0)))
