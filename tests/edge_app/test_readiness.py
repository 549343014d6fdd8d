"""Levels that are prepared when they are wanted, and times that are estimates until they ran."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from edge_app.governor import load_policy
from edge_app.governor.energy import Profile
from edge_app.governor.frames import Frames
from edge_app.models import open_model
from edge_app.policy.model import Energy
from edge_app.profiles.measuring import profile_for, ramp
from edge_app.profiles.readiness import RUNS, Readiness
from edge_app.sensors.root import SysRoot
from native_ops import Program, _native

MODEL = "cifar10-resnet20"
ENERGY = Energy()
LIMIT_S = 60.0


@pytest.fixture
def program() -> Iterator[Program]:
    with open_model(MODEL) as opened:
        yield opened


def costs(program: Program, tmp_path: Path) -> Profile:
    return profile_for(program, 1, "normal", ENERGY, tmp_path, SysRoot(tmp_path), first=2)


def readiness(
    program: Program, profile: Profile, slowdown: float = 1.0
) -> tuple[Readiness, list[Profile]]:
    refined: list[Profile] = []
    ready = Readiness(program, 2, profile, ENERGY.active_w, refined.append, lambda: slowdown)
    return ready, refined


def wait_for(ready: Readiness, bits: int) -> None:
    end = time.monotonic() + LIMIT_S
    while ready.nearest(bits) != bits:
        assert time.monotonic() < end, f"{bits} bits are never ready"
        time.sleep(0.01)


def test_only_the_level_that_runs_is_prepared(program: Program, tmp_path: Path) -> None:
    """One branch's weights at 2 bits; 8 bits, when they are wanted, bring four more."""
    assert _native.prepared_bytes() == 0
    ready, _ = readiness(program, costs(program, tmp_path))
    held = _native.prepared_bytes()
    layers = program.profile(2, ramp(program))
    assert 0 < sum(layer.weight_bytes for layer in layers) == held
    assert {layer.branch for layer in layers} == {0, 1}
    assert ready.nearest(2) == 2
    assert _native.prepared_bytes() == held
    wait_for(ready, 8)
    assert _native.prepared_bytes() > held
    assert ready.nearest(2) == 2
    # 4 bits are still not prepared; what is below them runs.
    assert ready.nearest(4) == 2


def held_beside_a_preparation() -> list[int]:
    """Bytes of prepared weights before 8 bits are prepared, after each frame meanwhile, and then."""
    with open_model(MODEL) as program:
        image = ramp(program)
        expected = program.run(2, image)
        held = [_native.prepared_bytes()]
        preparing = threading.Thread(target=program.prepare, args=(8,))
        preparing.start()
        while preparing.is_alive():
            np.testing.assert_array_equal(program.run(2, image), expected)
            held.append(_native.prepared_bytes())
        return [*held, _native.prepared_bytes()]


def test_frames_go_on_while_a_level_is_prepared() -> None:
    """A frame that waits until the preparation ends sees all of its weights, never a part."""
    end = time.monotonic() + LIMIT_S
    parts: set[int] = set()
    # In processes of their own, since kernels are measured once in each, and in several: a busy
    # machine may let a preparation end before it lets a frame run.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        while len(parts) < 2:
            assert time.monotonic() < end, "frames wait for the preparation"
            held = processes.submit(held_beside_a_preparation).result(LIMIT_S)
            parts = set(held) - {held[0], held[-1]}


def test_the_first_run_of_a_prepared_level_prepares_nothing(program: Program) -> None:
    program.prepare(8)
    held = _native.prepared_bytes()
    logits = program.run(8, ramp(program))
    assert 0 < held == _native.prepared_bytes()
    with open_model(MODEL) as other:
        np.testing.assert_array_equal(other.run(8, ramp(program)), logits)


def test_no_such_level(program: Program) -> None:
    with pytest.raises(ValueError, match="no level of 3 bits"):
        program.prepare(3)


def test_estimates_follow_the_multiplications(program: Program, tmp_path: Path) -> None:
    profile = costs(program, tmp_path)
    assert profile.estimated == {4, 6, 8} and sorted(profile.levels) == [2, 4, 6, 8]
    levels = program.metadata["levels"]
    for bits, seconds in profile.seconds.items():
        ratio = levels[str(bits)]["macs"] / levels["2"]["macs"]
        assert seconds == pytest.approx(profile.seconds[2] * ratio)
        assert profile.levels[bits].joules == pytest.approx(ENERGY.active_w * seconds)


def test_what_ran_replaces_its_estimate(program: Program, tmp_path: Path) -> None:
    profile = costs(program, tmp_path)
    ready, refined = readiness(program, profile, slowdown=2.0)
    for _ in range(RUNS):
        ready.ran(2, 1.0)
    assert not refined, "it had been measured"
    for seconds in (0.9, 0.020, 0.022, 0.018, 0.019):
        assert not refined
        ready.ran(8, seconds)
    (better,) = refined
    assert better.estimated == {4, 6}
    assert better.seconds[8] == pytest.approx(0.010), (
        "the median, on a machine that is twice as slow"
    )
    assert better.levels[8].joules == pytest.approx(ENERGY.active_w * 0.010)
    assert better.levels[2] == profile.levels[2] and better.levels[4] == profile.levels[4]
    ready.ran(8, 5.0)
    assert len(refined) == 1


def test_an_estimate_says_nothing_of_how_slow_frames_are() -> None:
    policy = load_policy(None)
    seconds = Profile.from_seconds({2: 0.010, 8: 0.040}, 1.0, 1.0)
    guess = Profile(seconds.levels, 1.0, seconds.source, estimated=frozenset({8}))
    frames = Frames(policy, guess, 0.0)
    for _ in range(50):
        frames.observe(8, 0.4)
    assert frames.slowdown.mean == 1.0
    for _ in range(50):
        frames.observe(2, 0.020)
    slow = frames.slowdown.mean
    assert slow == pytest.approx(2.0, rel=0.05)
    # The same model, better known: as slow as before. Another one: nobody knows.
    frames.replace_profile(policy, seconds)
    assert frames.slowdown.mean == slow
    frames.replace_profile(policy, seconds)
    assert frames.slowdown.mean == 1.0
