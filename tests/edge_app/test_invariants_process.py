"""Invariants I11 to I16 of docs/governor.md: the frame path, second runs, the log and restarts."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_root import POWER, Machine, Pack
from faults import BLINDING, FAULTS
from governor_samples import COOL, LEVELS, PROFILE, make_sample
from hypothesis import given
from hypothesis import strategies as st
from invariants import (
    POLICY,
    RAISE_S,
    fault_names,
    few,
    fewer,
    many,
    restarted,
)
from rig import Rig, Watch, events, governor_of, policy_of

from edge_app.clock import ManualClock
from edge_app.governor import Decision, Governor
from edge_app.policy.model import Confidence

# I11: the frame path ------------------------------------------------------------------------------

_audited: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _audited is not None and threading.current_thread() is threading.main_thread():
        _audited.append(event)


@contextmanager
def audited() -> Iterator[list[str]]:
    """Every audit event of this thread: each opened file, socket, process. A hook stays for the
    life of the interpreter, so that there is one, and it is deaf outside of this block."""
    global _audited
    if _hook not in _hooked:
        sys.addaudithook(_hook)
        _hooked.append(_hook)
    _audited = seen = []
    try:
        yield seen
    finally:
        _audited = None


_hooked: list[Any] = []


def frames(governor: Governor, clock: ManualClock, count: int) -> int:
    """What the frame path does, ``count`` times."""
    escalated = 0
    for index in range(count):
        bits = governor.first_level
        if not governor.paused and governor.frame_interval_s < math.inf:
            governor.observe_latency(bits, PROFILE[bits] * 1.1)
            again = governor.escalate(bits, 0.05 if index % 2 else 0.5)
            if again is not None:
                escalated += 1
                governor.observe_latency(again, PROFILE[again] * 1.1)
        clock.advance(0.033)
    return escalated


def escalating_governor(clock: ManualClock) -> Governor:
    governor = governor_of("confidence.start_bits=2", clock=clock)
    governor.step(make_sample(clock.now()))
    return governor


def test_i11_the_frame_path_does_no_io() -> None:
    clock = ManualClock()
    governor = escalating_governor(clock)
    with audited() as seen:
        with Path("/dev/null").open():
            pass
        assert "open" in seen, "the audit works"
        seen.clear()
        assert frames(governor, clock, 1000) > 50
    assert seen == []


def test_i11_the_frame_path_does_not_grow() -> None:
    clock = ManualClock()
    governor = escalating_governor(clock)
    frames(governor, clock, 5000)
    gc.collect()
    tracemalloc.start()
    try:
        frames(governor, clock, 100)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        frames(governor, clock, 20_000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1024, f"{after - before} bytes after 20 000 frames"


def test_i11_there_is_no_lock_in_the_governor() -> None:
    """Nothing that the governor holds is a lock, at any depth."""
    clock = ManualClock()
    governor = escalating_governor(clock)
    locks = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event)
    seen: set[int] = set()
    pending: list[Any] = [governor]
    while pending:
        thing = pending.pop()
        if id(thing) in seen or isinstance(thing, type | type(sys)) or callable(thing):
            continue
        seen.add(id(thing))
        assert not isinstance(thing, locks), f"{thing!r} is a lock"
        pending.extend(gc.get_referents(thing))
    assert len(seen) > 50


# I12: escalations ---------------------------------------------------------------------------------


@many
@given(
    asks=st.lists(
        st.tuples(st.floats(0.0, 3.0), st.sampled_from(LEVELS), st.floats(-1.0, 2.0)), max_size=80
    ),
    burst=st.integers(1, 12),
    rate=st.floats(0.1, 10.0),
    ceiling=st.sampled_from(LEVELS),
)
def test_i12_escalations_stay_in_the_bucket_and_below_the_ceiling(
    asks: list[tuple[float, int, float]], burst: int, rate: float, ceiling: int
) -> None:
    clock = ManualClock()
    confidence = Confidence(start_bits=2, burst=burst, max_per_s=rate)
    policy = policy_of(f"levels.max_bits={ceiling}", "frame.deadline_ms=0")
    governor = Governor(
        policy.model_copy(update={"confidence": confidence}), LEVELS, PROFILE, clock
    )
    governor.step(make_sample(clock.now()))
    watch = Watch(governor)
    for pause, bits, margin in asks:
        clock.advance(pause)
        granted = watch.asked(bits, margin, clock.now())
        if granted is not None:
            assert margin < confidence.escalate_below


# I13: the energy budget ---------------------------------------------------------------------------


@fewer
@given(
    full_wh=st.floats(5.0, 40.0),
    hours=st.floats(0.5, 3.0),
    error=st.floats(0.75, 1.25),
    percent=st.floats(40.0, 100.0),
)
def test_i13_it_lasts_until_then_or_says_that_it_cannot(
    full_wh: float, hours: float, error: float, percent: float
) -> None:
    """The device takes ``error`` times what the profile says; the gauge gives whole percents."""
    pack = Pack(percent=percent, full_wh=full_wh)
    machine = Machine(packs={"BAT0": pack})
    due = machine.wall + timedelta(hours=hours)
    rig = Rig(machine, f"battery.until={due:%H:%M:%S}", "battery.tiers=[]", power_error=error)
    for name in ("energy_now", "current_now"):
        del machine.root.files[f"{POWER}/BAT0/{name}"]
    decision = rig.second()
    declared = "cannot_last" in events([decision])
    while machine.wall < due and pack.percent > POLICY.battery.reserve - 1.0:
        decision = rig.second(10.0)
        declared = declared or "cannot_last" in events([decision])
    if machine.wall < due - timedelta(seconds=1):
        assert declared and decision.rung == 0, f"ended {due - machine.wall} too soon"


# I14: the same again ------------------------------------------------------------------------------


def decision_log(names: Sequence[str], temperatures: Sequence[float]) -> str:
    rig = Rig(Machine(packs={"BAT0": Pack()}, chargers={"AC": False}), "battery.until=18:00:00")
    lines = []
    for name, temperature in zip(names, temperatures, strict=True):
        rig.machine.celsius["cpu-thermal"] = temperature
        end = FAULTS[name].begin(rig.machine)
        lines += rig.run(20, lambda _: rig.frames(1.4, 3))
        end()
    return "\n".join(json.dumps(line.to_json(), separators=(",", ":")) for line in lines)


@few
@given(data=st.lists(st.tuples(fault_names, st.floats(40.0, 95.0)), min_size=1, max_size=4))
def test_i14_the_same_inputs_give_the_same_log(data: list[tuple[str, float]]) -> None:
    names, temperatures = zip(*data, strict=True)
    assert decision_log(names, temperatures) == decision_log(names, temperatures)


@pytest.mark.slow
def test_i14_the_log_does_not_depend_on_the_process() -> None:
    """Neither on the order of sets and dictionaries nor on anything else of an interpreter."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_invariants_process as t; "
        "print(t.decision_log(['stuck', 'charger flaps', 'two zones disagree'], [60, 84, 50]))"
    )
    logs = {
        subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parent)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(logs) == 1 and len(logs.pop().splitlines()) == 60


# I15: accounts ------------------------------------------------------------------------------------


@few
@given(data=st.lists(st.tuples(fault_names, st.floats(40.0, 95.0)), min_size=1, max_size=4))
def test_i15_every_change_has_one_cause_and_every_second_a_rung(
    data: list[tuple[str, float]],
) -> None:
    rig = Rig(Machine(packs={"BAT0": Pack()}, chargers={"AC": False}))
    decisions: list[Decision] = []
    for name, temperature in data:
        rig.machine.celsius["cpu-thermal"] = temperature
        end = FAULTS[name].begin(rig.machine)
        decisions += rig.run(30)
        end()
    spent = sum(rig.watch.seconds_in.values())
    assert spent == pytest.approx(decisions[-1].time - decisions[0].time)
    for decision in decisions:
        lowest = min(decision.caps.values())
        if decision.changed and decision.bits < decision.previous_bits:
            assert decision.caps[decision.cause] == lowest and decision.why


# I16: restarts ------------------------------------------------------------------------------------


@few
@given(name=st.sampled_from(BLINDING), every=st.integers(1, 9), count=st.integers(2, 12))
def test_i16_a_crash_loop_does_not_reset_the_fail_safe(name: str, every: int, count: int) -> None:
    rig = Rig()
    rig.run(20)
    FAULTS[name].begin(rig.machine)
    rig.run(12)
    allowed = rig.governor.ladder.at_most(POLICY.failsafe.lost_thermal_sensor_bits)
    for _ in range(count):
        restarted(rig)
        assert all(decision.rung <= allowed for decision in rig.run(every))


@few
@given(every=st.integers(1, 19), count=st.integers(1, 20))
def test_i16_a_crash_loop_does_not_raise(every: int, count: int) -> None:
    rig = Rig()
    rig.machine.celsius["cpu-thermal"] = 85.0
    low = rig.run(60)[-1].rung
    rig.machine.celsius["cpu-thermal"] = COOL
    for _ in range(count):
        restarted(rig)
        assert all(decision.rung <= low for decision in rig.run(every))


def test_i16_the_back_off_survives() -> None:
    """A rung that failed keeps its longer dwell across a restart."""
    rig = Rig()
    waits = []
    for _ in range(4):
        rig.machine.celsius["cpu-thermal"] = COOL
        while rig.governor.level < 8:
            rig.second()
        rig.machine.celsius["cpu-thermal"] = 79.0
        rig.run(30)
    rig.machine.celsius["cpu-thermal"] = COOL
    restarted(rig)
    for _ in range(400):
        decision = rig.second()
        waits.append(decision.next_raise_s or 0.0)
    assert max(waits) > 2 * RAISE_S


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@many
@given(garbage=st.dictionaries(st.text(max_size=8), json_values), data=st.data())
def test_i16_any_state_file_is_survived(garbage: dict[str, Any], data: st.DataObject) -> None:
    governor = governor_of()
    governor.step(make_sample(0.0))
    state = governor.state()
    torn = {key: data.draw(json_values | st.just(value)) for key, value in state.items()}
    for saved in (garbage, torn, {}):
        other = governor_of()
        other.restore(saved)
        watch = Watch(other)
        for second in range(3):
            sample = make_sample(float(second))
            watch.decided(sample, other.step(sample))
