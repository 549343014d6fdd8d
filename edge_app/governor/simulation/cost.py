"""What the governor itself costs, measured on this machine with its own sensors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from edge_app.clock import RealClock
from edge_app.governor import load_policy
from edge_app.governor.controller import Governor
from edge_app.governor.loop import PERIOD_S, GovernorLoop
from edge_app.governor.simulation.bars import Bar
from edge_app.sensors import SysfsSensors

PROFILE = {2: 0.010, 4: 0.020, 6: 0.030, 8: 0.040}
FRAMES = 20000
FRAMES_PER_S = 30.0
TICKS = 60
MOST_MS_PER_FRAME = 0.2
MOST_OF_A_CORE = 0.01


def frame_path_ms(frames: int = FRAMES) -> list[float]:
    """Milliseconds that the frame path spends with the governor, frame by frame, sorted; the slow
    loop runs in its thread meanwhile, ten times as fast as on a device."""
    clock = RealClock(speed=10.0)
    governor = Governor(load_policy(None, "longest"), tuple(PROFILE), PROFILE, clock)
    loop = GovernorLoop(governor, SysfsSensors(Path("/"), clock), clock, lambda decision: None)
    loop.start()
    times = []
    for frame in range(frames):
        begin = time.perf_counter_ns()
        bits = governor.first_level
        _ = governor.paused, governor.frame_interval_s
        governor.observe_latency(bits, PROFILE[bits])
        if bits < governor.level and frame % 8 == 0:
            governor.escalate(bits, 0.1)
        times.append((time.perf_counter_ns() - begin) * 1e-6)
    loop.stop()
    return sorted(times)


def tick_seconds(ticks: int = TICKS) -> float:
    """CPU seconds of one round of the slow loop: read every sensor of this machine, decide."""
    clock = RealClock()
    sensors = SysfsSensors(Path("/"), clock)
    governor = Governor(load_policy(None), tuple(PROFILE), PROFILE, clock)
    governor.step(sensors.sample())
    begin = time.thread_time()
    for _ in range(ticks):
        governor.step(sensors.sample())
    return (time.thread_time() - begin) / ticks


def own_cost() -> Iterator[Bar]:
    """The share of each frame and of one core."""
    times = frame_path_ms()
    p99 = times[round(0.99 * (len(times) - 1))]
    yield Bar(
        "cost",
        f"frame path, {len(times)} frames",
        f"p99 {p99:.4f} ms, median {times[len(times) // 2]:.4f} ms",
        f"p99 < {MOST_MS_PER_FRAME:g} ms",
        p99 < MOST_MS_PER_FRAME,
    )
    tick = tick_seconds()
    mean_frame_s = sum(times) / len(times) * 1e-3
    share = tick / PERIOD_S + mean_frame_s * FRAMES_PER_S
    yield Bar(
        "cost",
        f"this machine's sensors each second, {FRAMES_PER_S:g} frames/s",
        f"{share:.2%} of one core ({tick * 1e3:.2f} ms a round)",
        f"< {MOST_OF_A_CORE:.0%}",
        share < MOST_OF_A_CORE,
    )
