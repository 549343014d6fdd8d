"""What is known of frames: what they cost, how slow they are, which run twice."""

from __future__ import annotations

import pytest
from governor_samples import LEVELS, PROFILE, a_policy, make_sample

from edge_app.clock import ManualClock
from edge_app.governor import Governor
from edge_app.governor.energy import LevelCost, Profile, Use
from edge_app.governor.frames import Frames

POLICY = a_policy("confidence.start_bits=2")


def make_frames() -> Frames:
    return Frames(POLICY, PROFILE, 0.0)


def test_seconds_alone_cost_what_the_policy_states() -> None:
    policy = a_policy("energy.idle_w=1.5", "energy.active_w=5")
    frames = Frames(policy, {2: 0.01, 4: 0.0, 8: 0.04}, 0.0)
    assert frames.seconds == {2: 0.01, 8: 0.04}
    assert frames.profile.idle_w == 1.5 and frames.profile.levels[8] == LevelCost(0.04, 0.2)
    frames.replace_policy(POLICY)
    assert frames.profile.idle_w == 2.0 and frames.profile.levels[8].joules == pytest.approx(0.12)


def test_a_profile_stays_what_it_is() -> None:
    profile = Profile({8: LevelCost(0.04, 0.1), 4: LevelCost(0.0, 0.1)}, 9.0, "test")
    frames = Frames(POLICY, profile, 0.0)
    assert frames.profile is profile and frames.seconds == {8: 0.04}
    frames.replace_policy(a_policy())
    assert frames.profile is profile


def test_what_ran() -> None:
    frames = make_frames()
    assert frames.look(0.0) is None
    for _ in range(20):
        frames.observe(8, 0.04)
    assert frames.look(2.0) == Use(10.0, pytest.approx(2.0 + 10 * 0.04 * 3.0))  # type: ignore[arg-type]
    assert frames.look(3.0) == Use(0.0, 2.0)


def test_the_second_run_of_a_frame_is_no_frame() -> None:
    frames = make_frames()
    frames.look(0.0)
    frames.observe(2, 0.01)
    assert frames.escalate(2, 8, 0.0, 0.5) == 8
    frames.observe(8, 0.04)
    frames.observe(2, 0.01)
    assert frames.escalate(2, 8, 0.9, 0.6) is None
    frames.observe(2, 0.01)
    use = frames.look(1.0)
    assert use is not None and use.fps == 3.0
    assert use.watts == pytest.approx(2.0 + 3.0 * (3 * 0.01 + 0.04))


def test_how_slow_frames_are_is_known_for_ten_seconds() -> None:
    frames = make_frames()
    assert frames.recent_slowdown(0.0) is None
    frames.look(0.0)
    frames.observe(8, 0.04)
    assert frames.recent_slowdown(0.5) is None, "nobody has looked"
    frames.look(1.0)
    assert frames.recent_slowdown(11.0) == frames.slowdown.mean == 1.0
    assert frames.recent_slowdown(11.001) is None
    frames.look(5.0)
    assert frames.recent_slowdown(11.001) is None, "a look without frames"


def test_slowdown_is_time_by_profile() -> None:
    frames = make_frames()
    for bits in LEVELS * 50:
        frames.observe(bits, 1.5 * PROFILE[bits])
    frames.observe(3, 99.0)
    assert frames.slowdown.mean == pytest.approx(1.5, rel=0.01)
    frames.replace_policy(POLICY)
    assert frames.slowdown.mean == pytest.approx(1.5, rel=0.01)
    frames.replace_profile(POLICY, {2: 1.0})
    assert frames.slowdown.mean == 1.0 and frames.seconds == {2: 1.0}


def test_second_runs_pay_from_what_is_spare() -> None:
    frames = make_frames()
    frames.spare(0.0)
    assert frames.escalate(2, 8, 0.0, 0.0) is None
    frames.spare(None)
    assert frames.escalate(2, 8, 0.0, 0.0) == 8


def test_another_policy_decides_on_second_runs() -> None:
    frames = make_frames()
    frames.replace_policy(a_policy("confidence.escalate_below=0"))
    assert frames.escalate(2, 8, 0.0, 0.0) is None


def test_another_model_in_a_running_governor() -> None:
    governor = Governor(a_policy(), LEVELS, PROFILE, ManualClock())
    governor.step(make_sample(0.0))
    for _ in range(100):
        governor.observe_latency(8, 2.0 * PROFILE[8])
    governor.replace_profile({8: 0.08})
    assert governor.slowdown > 1.9, "from the next step on"
    governor.step(make_sample(1.0))
    assert governor.slowdown == 1.0
    for _ in range(100):
        governor.observe_latency(8, 0.16)
    assert governor.slowdown == pytest.approx(2.0, rel=0.01)
    governor.step(make_sample(2.0))
    assert governor.slowdown == pytest.approx(2.0, rel=0.01), "once"
