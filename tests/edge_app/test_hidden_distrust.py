"""Thermometers that are not believed while something throttles, and how they are trusted again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from governor_samples import a_policy
from hidden_samples import (
    KERNEL_TEXT,
    POLICY,
    SLOW,
    SLOW_TEXT,
    SOUND,
    TOP,
    distrusting,
    make_throttle,
    reads,
)

from edge_app.governor import Event
from edge_app.governor.hidden import Evidence, HiddenThrottle
from edge_app.governor.ladder import build_ladder


def drain(throttle: HiddenThrottle) -> list[Event]:
    events = list(throttle.events)
    throttle.events.clear()
    return events


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [(SLOW, SLOW_TEXT), (replace(SOUND, throttled=True), KERNEL_TEXT)],
    ids=["slow", "kernel"],
)
def test_thermometers_that_claim_to_be_cool_for_long_are_not_believed(
    evidence: Evidence, reason: str
) -> None:
    throttle = make_throttle()
    evidence = reads(evidence, {"soc": 44.04, "cpu": 50.0})
    throttle.update(evidence, TOP, 10.0)
    throttle.update(evidence, TOP, 39.999)
    assert throttle.distrusted == () and throttle.detail == ""
    throttle.update(evidence, TOP, 40.0)
    assert throttle.distrusted == ("cpu", "soc")
    assert throttle.detail == f"cpu 50.0 °C, soc 44.0 °C is not believed: {reason}"
    assert Event("distrusted", throttle.detail) in drain(throttle)
    throttle.update(evidence, TOP, 41.0)
    assert "distrusted" not in [event.kind for event in drain(throttle)], "told once"


@pytest.mark.parametrize("but", [{"cool": False}, {"slowdown": 1.0}], ids=["warm", "quick"])
def test_evidence_fades_five_times_as_slowly_as_it_adds_up(but: dict[str, Any]) -> None:
    throttle, now = make_throttle(), 0.0
    for _ in range(3):
        # Ten seconds of it, and ten without, which take two off and of which the first tick of
        # the next ones is part.
        for offset in (0.0, 10.0):
            throttle.update(SLOW, TOP, now + offset)
        throttle.update(replace(SLOW, **but), TOP, now + 20.0)
        now += 20.0
    throttle.update(SLOW, TOP, now)
    assert throttle.distrusted == ()
    throttle.update(SLOW, TOP, now + 5.999)
    assert throttle.distrusted == ()
    throttle.update(SLOW, TOP, now + 6.0)
    assert throttle.distrusted == ("cpu",)


def test_rare_slowness_is_no_evidence() -> None:
    throttle = make_throttle()
    for second in range(3600):
        throttle.update(SLOW if second % 30 < 2 else SOUND, TOP, float(second))
    assert throttle.distrusted == ()


@pytest.mark.parametrize(
    ("slowdown", "seconds"),
    [(1.21, 30.0), (1.39, 30.0), (1.41, 15.0), (1.61, 10.0), (1.81, 7.5), (9.0, 7.5)],
)
def test_much_slower_frames_are_more_evidence(slowdown: float, seconds: float) -> None:
    throttle, slow = make_throttle(), replace(SOUND, slowdown=slowdown)
    throttle.update(slow, TOP, 0.0)
    throttle.update(slow, TOP, seconds - 0.001)
    assert throttle.distrusted == ()
    throttle.update(slow, TOP, seconds)
    assert throttle.distrusted == ("cpu",)


def test_a_kernel_that_throttles_is_evidence_whatever_frames_take() -> None:
    throttle, slow = make_throttle(), replace(SOUND, slowdown=None, throttled=True)
    for second in range(30):
        throttle.update(slow, TOP, float(second))
    assert throttle.distrusted == ()
    throttle.update(slow, TOP, 30.0)
    assert throttle.distrusted == ("cpu",)


def test_where_there_is_no_thermometer_there_is_none_to_distrust() -> None:
    throttle = make_throttle()
    for second in range(100):
        throttle.update(reads(SLOW, {}), TOP, float(second))
    assert throttle.distrusted == () and [e.kind for e in throttle.events] == ["throttled"]


def test_trust_returns_after_sound_readings_that_move() -> None:
    throttle = distrusting()
    drain(throttle)
    throttle.update(reads(SOUND, {"cpu": 49.0}), 2, 100.0)
    throttle.update(reads(SOUND, {"cpu": 50.0}), 2, 159.999)
    assert throttle.distrusted == ("cpu",)
    throttle.update(reads(SOUND, {"cpu": 50.0}), 2, 160.0)
    assert throttle.distrusted == () and throttle.detail == ""
    assert drain(throttle)[-1] == Event("trusted", "cpu moves and nothing throttles any more")


@pytest.mark.parametrize(
    "evidence",
    [
        SOUND,
        reads(SOUND, {"cpu": 50.999}),
        reads(SOUND, {"cpu": 49.001}),
        reads(SOUND, {}),
        reads(SLOW, {"cpu": 40.0}),
        replace(reads(SLOW, {"cpu": 40.0}), others_idle=False),
        replace(reads(SOUND, {"cpu": 40.0}), throttled=True),
    ],
    ids=["stuck", "flickers up", "flickers down", "silent", "slow", "slow by others", "kernel"],
)
def test_trust_does_not_return_without_proof(evidence: Evidence) -> None:
    throttle = distrusting()
    for second in range(31, 1831):
        throttle.update(evidence, 0, float(second))
    assert throttle.distrusted == ("cpu",)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_where_nothing_throttles_for_long_trust_returns_unmoved(times: int) -> None:
    """After half an hour; an hour the second time, two hours the third."""
    throttle = distrusting()
    throttle._times = times
    since, long = 40.0, 1800.0 * 2 ** (times - 1)
    throttle.update(replace(SOUND, throttled=True), 0, since - 1.0)
    for second in range(int(long) // 10 + 1):
        throttle.update(SOUND, 0, since + 10.0 * second)
        believed = second == int(long) // 10
        assert throttle.distrusted == (() if believed else ("cpu",)), second
    assert throttle.events[-1].kind == "trusted"
    assert throttle.events[-1].text == (
        f"nothing has throttled for {long / 60:.0f} min; cpu is believed"
    )


def test_what_spoke_against_thermometers_is_forgotten_when_they_are_trusted() -> None:
    throttle = distrusting()
    for second in range(31, 200):
        throttle.update(SLOW, 0, float(second))
    moved = reads(SOUND, {"cpu": 55.0})
    for second in range(200, 262):
        throttle.update(moved, 0, float(second))
    assert [event.kind for event in throttle.events].count("trusted") == 1
    throttle.update(moved, 0, 262.0)
    assert throttle.distrusted == ()
    # From there on it takes as long as the first time.
    throttle.update(SLOW, 0, 300.0)
    throttle.update(SLOW, 0, 329.999)
    assert throttle.distrusted == ()
    throttle.update(SLOW, 0, 330.0)
    assert throttle.distrusted == ("cpu",)


def test_every_interruption_starts_the_proof_anew() -> None:
    throttle = distrusting()
    moved = reads(SOUND, {"cpu": 45.0})
    throttle.update(moved, 2, 100.0)
    throttle.update(replace(moved, throttled=True, cool=False), 2, 150.0)
    throttle.update(moved, 2, 151.0)
    throttle.update(moved, 2, 210.999)
    assert throttle.distrusted == ("cpu",)
    throttle.update(moved, 2, 211.0)
    assert throttle.distrusted == ()


def test_a_thermometer_that_appears_later_must_move_as_well() -> None:
    throttle = distrusting()
    other = reads(SOUND, {"cpu#2": 30.0})
    for second in range(100, 300):
        throttle.update(other, 2, float(second))
    assert throttle.distrusted == ("cpu",)
    for second in range(300, 361):
        throttle.update(reads(SOUND, {"cpu#2": 31.0}), 2, float(second))
    assert throttle.distrusted == ()


def test_one_that_has_moved_must_still_be_there() -> None:
    throttle = distrusting()
    throttle.update(reads(SOUND, {"cpu": 40.0}), 2, 100.0)
    for second in range(101, 300):
        throttle.update(reads(SOUND, {"soc": 30.0}), 2, float(second))
    assert throttle.distrusted == ("cpu",)


def test_every_relapse_doubles_the_proof_up_to_a_limit() -> None:
    throttle = make_throttle()
    now = 0.0
    for proof in (60.0, 120.0, 240.0, 480.0, 600.0, 600.0):
        throttle.update(SLOW, TOP, now)
        now += 30.0
        throttle.update(SLOW, TOP, now)
        assert throttle.distrusted
        now += 1.0
        throttle.update(reads(SOUND, {"cpu": 40.0}), 2, now)
        throttle.update(reads(SOUND, {"cpu": 40.0}), 2, now + proof - 0.001)
        assert throttle.distrusted
        now += proof
        throttle.update(reads(SOUND, {"cpu": 40.0}), 2, now)
        assert not throttle.distrusted
        now += 1.0


def test_a_policy_may_ask_for_a_longer_proof_than_the_longest_dwell() -> None:
    throttle = make_throttle("failsafe.recover_s=1000")
    throttle.update(SLOW, TOP, 0.0)
    throttle.update(SLOW, TOP, 30.0)
    throttle.update(reads(SOUND, {"cpu": 40.0}), 2, 31.0)
    throttle.update(reads(SOUND, {"cpu": 40.0}), 2, 1030.999)
    assert throttle.distrusted
    throttle.update(reads(SOUND, {"cpu": 40.0}), 2, 1031.0)
    assert not throttle.distrusted


def test_after_a_gap_nothing_has_lasted() -> None:
    throttle = make_throttle()
    throttle.update(SLOW, TOP, 0.0)
    throttle.restart()
    throttle.update(SLOW, TOP, 4000.0)
    assert throttle.distrusted == () and throttle.events == []
    throttle = distrusting()
    throttle.update(reads(SOUND, {"cpu": 40.0}), 2, 31.0)
    throttle.restart()
    throttle.update(reads(SOUND, {"cpu": 40.0}), 2, 4000.0)
    assert throttle.distrusted


def test_another_policy_keeps_distrust_and_steps() -> None:
    throttle = distrusting()
    assert throttle.update(SLOW, TOP, 31.0).rung == TOP - 1
    throttle.replace_policy(a_policy("throttle.step_s=5"), build_ladder((2, 4), POLICY))
    assert throttle.distrusted == ("cpu",)
    assert throttle.update(SLOW, 2, 32.0).rung == 2
    assert throttle.update(SLOW, 2, 35.0).rung == 1
