"""Faults that no sensor is part of: of policies, disks, cameras and models."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from governor_samples import LEVELS, PROFILE, a_policy, make_sample
from rig import Rig

from edge_app.clock import ManualClock
from edge_app.governor import Governor
from edge_app.sensors import Zone

# Policies -----------------------------------------------------------------------------------------


def test_a_policy_that_comes_in_mid_tick_waits_for_the_next() -> None:
    """Replaced while a step is under way: that step is of one piece."""
    clock = ManualClock()
    governor = Governor(a_policy(), LEVELS, PROFILE, clock)
    governor.step(make_sample(0.0))
    other = a_policy("levels.max_bits=2")

    class Zones(tuple[Zone, ...]):
        def __iter__(self) -> Iterator[Zone]:
            governor.replace_policy(other)
            return super().__iter__()

    sample = make_sample(1.0)
    during = governor.step(replace(sample, zones=Zones(sample.zones)))
    assert (during.bits, governor.level) == (8, 8)
    after = governor.step(make_sample(2.0))
    assert (after.bits, governor.level, after.cause) == (2, 2, "policy")


def test_a_half_written_policy_leaves_the_old_one(tmp_path: Path) -> None:
    from edge_app.policy.layers import resolve
    from edge_app.policy.watcher import PolicyWatcher, Rejected, Reloaded

    path = tmp_path / "policy.toml"
    path.write_text("[levels]\nmax_bits = 8\n")
    clock = ManualClock()
    watcher = PolicyWatcher(lambda: resolve(path), clock)
    whole = "[levels]\nmax_bits = 4\n"
    for length in range(1, len(whole)):
        clock.advance(3.0)
        path.write_text(whole[:length] + "=")
        told = watcher.poll()
        assert told is None or isinstance(told, Rejected)
        assert watcher.current.policy.levels.max_bits == 8
    clock.advance(3.0)
    path.write_text(whole)
    told = watcher.poll()
    assert isinstance(told, Reloaded) and told.policy.levels.max_bits == 4


# Disks, cameras, models ---------------------------------------------------------------------------

FULL_DISK = """
import json, logging, resource, sys
from pathlib import Path
from edge_app.state_file import StateFile
logging.basicConfig(format="%(message)s")
state = StateFile(Path(sys.argv[1]))
state.save({"rung": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))
state.save({"rung": 2})
state.save({"rung": 3})
print(json.dumps(state.load()))
"""


def test_a_full_disk_keeps_the_old_state_and_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "governor.json"
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert json.loads(ran.stdout) == {"rung": 1}
    assert ran.stderr.count("cannot be saved") == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name], "nothing half-written stays"


def test_a_camera_that_hangs_is_no_slow_machine() -> None:
    """No frames for five minutes after slow ones: what was slow then says nothing now."""
    rig = Rig()
    rig.run(30, lambda _: rig.frames(1.0))
    rig.run(20, lambda _: rig.frames(1.3))
    before = rig.governor.level
    decisions = rig.run(300)
    assert decisions[-1].distrusted == ()
    assert decisions[-1].bits == before


def test_a_burst_of_frames_is_only_frames() -> None:
    rig = Rig(None, "confidence.start_bits=2")
    rig.run(30)
    granted = [rig.watch.asked(2, 0.0, rig.machine.clock.now()) for _ in range(1000)]
    assert sum(bits is not None for bits in granted) <= rig.policy.confidence.burst
    rig.frames(1.0, 10_000)
    assert rig.run(30)[-1].bits == 8


def test_a_burst_of_absurd_times_does_not_last() -> None:
    rig = Rig()
    rig.run(30)
    for seconds in (0.0, -1.0, math.nan, math.inf, 1e9):
        rig.governor.observe_latency(8, seconds)
    rig.run(60, lambda _: rig.frames(1.0))
    for _ in range(300):
        rig.frames(1.0)
        rig.second()
    assert rig.governor.level == 8


def test_a_ceiling_that_falls_between_the_runs_of_a_frame_is_kept_to() -> None:
    """A frame starts at 2 bits, the policy changes, and then it asks for more."""
    rig = Rig(None, "confidence.start_bits=2")
    rig.run(5)
    assert rig.governor.first_level == 2 and rig.governor.level == 8
    rig.reload("levels.max_bits=2")
    rig.second()
    assert rig.governor.escalate(2, 0.0) is None


def test_another_model_in_mid_frame_knows_its_own_levels() -> None:
    """The next model has fewer levels; what remains of the old one's state must not matter."""
    rig = Rig(None, "confidence.start_bits=2")
    rig.run(5)
    saved = json.loads(json.dumps(rig.governor.state()))
    governor = Governor(rig.policy, (2, 4), {2: 0.01, 4: 0.02}, rig.machine.clock)
    governor.restore(saved)
    assert governor.level in (2, 4) and governor.first_level in (2, 4)
    assert governor.escalate(8, 0.0) is None
    decision = governor.step(make_sample(rig.machine.clock.now()))
    assert decision.bits == 4
    assert governor.escalate(2, 0.0) == 4
