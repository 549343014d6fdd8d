"""Throttling seen by how slow frames are, to the tick, and what of it outlives a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hidden_samples import (
    KERNEL_TEXT,
    SLOW,
    SLOW_TEXT,
    SOUND,
    TOP,
    distrusting,
    make_throttle,
    reads,
)

from edge_app.governor import Event
from edge_app.governor.hidden import Episode, Evidence, HiddenThrottle, Lasting


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
