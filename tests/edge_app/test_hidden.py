"""Throttling seen by how slow frames are, and thermometers that are not believed, to the tick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from governor_samples import LEVELS, a_policy

from edge_app.governor import Event
from edge_app.governor.hidden import Episode, Evidence, HiddenThrottle, Lasting
from edge_app.governor.ladder import build_ladder

POLICY = a_policy()
LADDER = build_ladder(LEVELS, POLICY)
TOP = LADDER.top
CLAIM = {"cpu": 50.0}
SOUND = Evidence(slowdown=1.0, others_idle=True, cool=True, temperatures=CLAIM)
SLOW = replace(SOUND, slowdown=1.21)
SLOW_TEXT = "frames take 1.21 times their profile"
KERNEL_TEXT = "the kernel throttles the CPU"


def make_throttle(*overrides: str) -> HiddenThrottle:
    return HiddenThrottle(a_policy(*overrides), LADDER)


def reads(evidence: Evidence, temperatures: Mapping[str, float]) -> Evidence:
    return replace(evidence, temperatures=temperatures)


def distrusting(now: float = 30.0) -> HiddenThrottle:
    """One that stopped believing the claim of 50 °C at ``now``."""
    throttle = make_throttle()
    throttle.update(SLOW, TOP, now - 30.0)
    throttle.update(SLOW, TOP, now)
    assert throttle.distrusted == ("cpu",)
    return throttle


def drain(throttle: HiddenThrottle) -> list[Event]:
    events = list(throttle.events)
    throttle.events.clear()
    return events


def test_lasting() -> None:
    lasting = Lasting()
    assert lasting.update(False, 1.0) < 0
    assert lasting.update(True, 2.0) == 0.0
    assert lasting.update(True, 5.0) == 3.0
    assert lasting.update(False, 6.0) < 0
    assert lasting.update(True, 7.0) == 0.0


def test_episode_begins_once_and_ends_after_quiet() -> None:
    episode = Episode("throttled")
    assert episode.update("", 0.0, 30.0) == ()
    assert episode.update("first", 1.0, 30.0) == (Event("throttled", "first"),)
    assert episode.update("second", 2.0, 30.0) == ()
    assert episode.update("", 31.999, 30.0) == ()
    assert episode.update("", 32.0, 30.0) == (Event("throttled_over", "not seen for 30 s"),)
    assert episode.update("", 33.0, 30.0) == ()
    assert episode.update("again", 34.0, 30.0) == (Event("throttled", "again"),)
    assert episode.update("", 40.0, 30.0) == (), "counted from when it was last seen"


def test_nothing_to_see() -> None:
    throttle = make_throttle()
    cap = throttle.update(SOUND, TOP, 0.0)
    assert (cap.name, cap.rung, cap.why) == ("throttle", TOP, "nothing throttles the CPU")
    assert not cap.urgent and throttle.events == [] and throttle.detail == ""


def test_slow_frames_count_from_the_moment_they_have_been_slow_for_long() -> None:
    throttle = make_throttle()
    warm = replace(SLOW, cool=False)
    assert throttle.update(warm, TOP, 100.0).rung == TOP
    assert throttle.update(warm, TOP, 129.999).rung == TOP and throttle.events == []
    cap = throttle.update(warm, TOP, 130.0)
    assert (cap.rung, cap.why) == (TOP - 1, SLOW_TEXT)
    assert throttle.events == [Event("throttled", SLOW_TEXT)] and throttle.distrusted == ()
    # One rung a step from there on.
    assert throttle.update(warm, TOP - 1, 159.999).rung == TOP - 1
    assert throttle.update(warm, TOP - 1, 160.0).rung == TOP - 2


@pytest.mark.parametrize(
    "harmless",
    [
        replace(SLOW, slowdown=1.2),
        replace(SLOW, slowdown=None),
        replace(SLOW, others_idle=False),
    ],
    ids=["just within", "no frames", "others or unknown"],
)
def test_what_is_not_throttling(harmless: Evidence) -> None:
    throttle = make_throttle()
    for second in range(200):
        assert throttle.update(harmless, TOP, float(second)).rung == TOP
    assert throttle.distrusted == () and throttle.events == []


def test_one_quick_moment_starts_the_count_anew() -> None:
    throttle = make_throttle()
    for second in range(200):
        evidence = replace(SOUND if second % 30 == 29 else SLOW, cool=False)
        assert throttle.update(evidence, TOP, float(second)).rung == TOP
    assert throttle.events == []


def test_what_the_kernel_says_counts_at_once() -> None:
    throttle = make_throttle()
    cap = throttle.update(replace(SOUND, throttled=True, cool=False), TOP, 0.0)
    assert (cap.rung, cap.why) == (TOP - 1, KERNEL_TEXT)
    assert throttle.events == [Event("throttled", KERNEL_TEXT)]


def test_the_cap_goes_to_the_lowest_rung_and_comes_back_step_by_step() -> None:
    throttle = make_throttle()
    pressed = replace(SOUND, throttled=True, cool=False)
    seen = [throttle.update(pressed, TOP, 30.0 * step).rung for step in range(7)]
    assert seen == [4, 3, 2, 1, 0, 0, 0]
    seen = [throttle.update(SOUND, TOP, 30.0 * step).rung for step in range(7, 13)]
    assert seen == [1, 2, 3, 4, 5, 5]
    assert [event.kind for event in throttle.events] == ["throttled", "throttled_over"]


def test_weak_supply_steps_down_and_is_told_of() -> None:
    throttle = make_throttle()
    weak = replace(SOUND, under_voltage=True)
    cap = throttle.update(weak, TOP, 0.0)
    text = "weak power supply: its voltage is too low"
    assert (cap.rung, cap.why) == (TOP - 1, text)
    assert throttle.events == [Event("under_voltage", text)]
    throttle.update(weak, TOP, 1.0)
    cap = throttle.update(SOUND, TOP, 31.0)
    assert throttle.events[1:] == [Event("under_voltage_over", "not seen for 30 s")]
    assert (cap.rung, cap.why) == (TOP, text), "the reason stays while the cap comes back"
    assert throttle.distrusted == (), "that says nothing about thermometers"


def test_kernel_is_named_before_the_supply() -> None:
    throttle = make_throttle()
    both = replace(SOUND, throttled=True, under_voltage=True, cool=False)
    assert throttle.update(both, TOP, 0.0).why == KERNEL_TEXT
    assert [event.kind for event in throttle.events] == ["throttled", "under_voltage"]


# Distrust -----------------------------------------------------------------------------------------


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


# Restart of the program ---------------------------------------------------------------------------


def restarted(throttle: HiddenThrottle, now: float) -> HiddenThrottle:
    """Another one that goes on 1000 s earlier by its own clock."""
    fresh = make_throttle()
    fresh.restore(throttle.state(now), now - 1000.0)
    return fresh


def test_state() -> None:
    throttle = make_throttle()
    assert throttle.state(5.0) == {
        "steps": 0,
        "hidden_s": None,
        "lie_s": 0.0,
        "times": 0,
        "distrusted": [],
        "detail": "",
    }
    throttle = distrusting(30.0)
    state = throttle.state(32.0)
    assert state == {
        "steps": 1,
        "hidden_s": 32.0,
        "lie_s": 0.0,
        "times": 1,
        "distrusted": [["cpu", 50.0]],
        "detail": f"cpu 50.0 °C is not believed: {SLOW_TEXT}",
    }


def test_distrust_survives_and_so_does_what_ends_it() -> None:
    fresh = restarted(distrusting(), 40.0)
    assert fresh.distrusted == ("cpu",) and "not believed" in fresh.detail
    for second in range(-960, 0):
        fresh.update(SOUND, 2, float(second))
    assert fresh.distrusted == ("cpu",), "it has not moved since before the restart"
    for second in range(61):
        fresh.update(reads(SOUND, {"cpu": 51.0}), 2, float(second))
    assert fresh.distrusted == ()


def test_a_crash_loop_does_not_hide_throttling() -> None:
    throttle = make_throttle()
    now = 0.0
    for _ in range(4):
        throttle.update(SLOW, TOP, now)
        throttle.update(SLOW, TOP, now + 9.0)
        throttle, now = restarted(throttle, now + 9.0), now + 9.0 - 1000.0
    throttle.update(SLOW, TOP, now)
    assert throttle.distrusted == ("cpu",)


def test_relapses_and_steps_survive() -> None:
    throttle = distrusting()
    for second in (31, 91):
        throttle.update(reads(SOUND, {"cpu": 40.0}), 2, float(second))
    assert not throttle.distrusted
    pressed = replace(SOUND, throttled=True, cool=False)
    throttle.update(pressed, TOP, 125.0)
    throttle.update(pressed, TOP - 1, 155.0)
    fresh = restarted(throttle, 131.0)
    assert fresh.update(SOUND, TOP, -869.0).rung == TOP - 2
    assert fresh.update(SOUND, TOP, -839.001).rung == TOP - 2
    assert fresh.update(SOUND, TOP, -839.0).rung == TOP - 1
    assert fresh.state(-839.0)["times"] == 1


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"steps": "x", "hidden_s": -1, "lie_s": [], "times": None, "distrusted": 5, "detail": 5},
        {"steps": -1, "distrusted": [["", 5.0], [3, 5.0], "cpu", ["cpu"]]},
        {"steps": 65, "times": -5},
    ],
)
def test_restored_nonsense_is_ignored(state: dict[str, object]) -> None:
    throttle = make_throttle()
    throttle.restore(state, 0.0)
    assert throttle.distrusted == () and throttle.detail == ""
    assert throttle.update(SLOW, TOP, 0.0).rung == TOP
    assert throttle.state(0.0)["times"] == 0


def test_restored_distrust_without_the_rest() -> None:
    throttle = make_throttle()
    throttle.restore({"distrusted": [["b", "x"], ["a", 50.0]]}, 0.0)
    assert throttle.distrusted == ("a", "b")
    assert throttle.detail == "not believed before the restart"
    assert throttle.state(0.0)["times"] == 1
    assert throttle.state(0.0)["distrusted"] == [["a", 50.0], ["b", None]]
    assert throttle.update(SOUND, TOP, 0.0).rung == TOP


def test_restored_steps_stop_at_the_lowest_rung() -> None:
    throttle = make_throttle()
    throttle.restore({"steps": 64}, 0.0)
    assert throttle.update(SOUND, 0, 29.0).rung == 0
    assert throttle.update(SOUND, 0, 30.0).rung == 1
