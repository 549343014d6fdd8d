"""What the battery cap remembers across another policy and another process."""

from __future__ import annotations

from datetime import timedelta

import pytest
from battery_samples import NOON, PROFILE, TOP, caps, kinds, make_sample, make_tracker
from governor_samples import a_policy

from edge_app.governor.ladder import build_ladder


def test_a_reload_keeps_the_battery_and_the_cap_of_one_that_cannot_be_read() -> None:
    tracker = make_tracker()
    caps(tracker, lambda t: make_sample(t, 0.15), 0, 5)
    assert caps(tracker, lambda t: make_sample(t, None), 5, 2) == [3, 3]
    policy = a_policy("levels.max_bits=6", "battery.tiers=[]")
    tracker.replace(policy, build_ladder((2, 4, 6), policy), PROFILE)
    assert tracker.update(make_sample(7.0, None), 7.0, 3).rung == 3
    assert tracker.update(make_sample(8.0, 0.15), 8.0, 3).rung == 4


def test_a_reload_keeps_the_minimum_and_the_end_time() -> None:
    tracker = make_tracker("battery.until=14:00:00")
    tracker.update(make_sample(0.0, 0.39, wall=NOON), 0.0, TOP)
    tracker.events()
    same = a_policy("battery.until=14:00:00", "frame.target_fps=20", "frame.min_fps=5")
    tracker.replace(same, build_ladder((2, 4, 6, 8), same), PROFILE)
    tracker.update(make_sample(1.0, 0.6, wall=NOON + timedelta(hours=1)), 1.0, TOP)
    tracker.update(make_sample(2.0, 0.6, wall=NOON + timedelta(hours=1)), 2.0, TOP)
    assert tracker.charge == 0.6
    found = kinds(tracker)
    assert found[0] == "until_moved", "the clock is watched across a reload"
    other = a_policy("battery.until=16:00:00")
    tracker.replace(other, build_ladder((2, 4, 6, 8), other), PROFILE)
    cap = tracker.update(make_sample(3.0, 0.6, wall=NOON + timedelta(hours=1)), 3.0, TOP)
    assert tracker.until_s == 3 * 3600.0
    assert cap.rung <= 4, "39 % were seen"


def test_a_restart_remembers_the_minimum_unless_it_was_charged() -> None:
    tracker = make_tracker()
    caps(tracker, lambda t: make_sample(t, 0.19), 0, 3)
    state = tracker.state()
    for charge, rung in ((0.19, 3), (0.2399, 3), (0.2401, 4)):
        other = make_tracker()
        other.restore(state)
        assert caps(other, lambda t, c=charge: make_sample(t, c), 0, 3) == [rung] * 3  # type: ignore[misc]
    # Restarted again before anything was read.
    again = make_tracker()
    again.restore(state)
    assert again.state()["lowest"] == 0.19
    # A charger for a minute makes it worthless.
    charged = make_tracker()
    charged.restore(state)
    caps(charged, lambda t: make_sample(t, 0.21, False), 0, 61)
    assert caps(charged, lambda t: make_sample(t, 0.21), 61, 1) == [4]


def test_a_restart_remembers_how_fast_it_empties() -> None:
    tracker = make_tracker("battery.until=18:00:00")
    for second in range(300):
        charge = 0.9 - 0.01 * (second // 30)
        tracker.update(make_sample(float(second), charge, wall=NOON), float(second), TOP)
    other = make_tracker()
    other.restore(tracker.state())
    other.update(make_sample(0.0, 0.80), 0.0, TOP)
    assert other.end_s == pytest.approx(0.75 / (0.01 / 30), rel=0.2)


@pytest.mark.parametrize(
    "state", [None, 7, [], {"lowest": 7.0}, {"lowest": "x", "drain": 3}, {"lowest": -0.1}]
)
def test_restoring_nonsense_changes_nothing(state: object) -> None:
    tracker = make_tracker()
    tracker.restore(state)
    assert caps(tracker, lambda t: make_sample(t, 0.5), 0, 3) == [TOP] * 3
