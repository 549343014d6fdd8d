"""Grab, preprocess, infer, report: one frame after the other, at the level the governor allows."""

from __future__ import annotations

import math
import queue
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from edge_app.clock import Clock, RealClock
from edge_app.preprocess import prepare
from edge_app.record import FrameRecord
from edge_app.signals import StopRequest
from edge_app.sinks import OutputClosed, Sink
from edge_app.sources import EndOfSource, Frame, Source

if TYPE_CHECKING:
    from edge_app.governor import Decision

SLICE_S = 0.1
"""No wait is longer than this: signals, decisions and the end of the run are looked at between."""

PROFILE_RUNS = 5
PROFILE_BUDGET_S = 0.05


class Model(Protocol):
    """What the pipeline needs of ``native_ops.Program``."""

    @property
    def levels(self) -> tuple[int, ...]: ...
    @property
    def input_shape(self) -> tuple[int, int, int]: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    def run(self, bits: int, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]: ...


class LevelControl(Protocol):
    """What the pipeline needs of ``governor.Governor``."""

    @property
    def level(self) -> int: ...
    @property
    def frame_interval_s(self) -> float: ...
    @property
    def paused(self) -> bool: ...
    def observe_latency(self, bits: int, seconds: float) -> None: ...


def profile(model: Model) -> dict[int, float]:
    """Median seconds of a run at each level: at most five runs and 50 ms a level, one to warm up.

    The kernels' time does not depend on the pixels, so a ramp will do.
    """
    size = int(np.prod(model.input_shape))
    image = (np.arange(size) % 251).astype(np.uint8).reshape(model.input_shape)
    seconds: dict[int, float] = {}
    for bits in model.levels:
        model.run(bits, image)
        times: list[float] = []
        while len(times) < PROFILE_RUNS and (not times or sum(times) < PROFILE_BUDGET_S):
            started = time.perf_counter()
            model.run(bits, image)
            times.append(time.perf_counter() - started)
        seconds[bits] = statistics.median(times)
    return seconds


@dataclass(frozen=True)
class Limits:
    """When a run ends and how fast it may go; ``None`` is no limit.

    ``target_fps``: upper bound on the frame rate. ``fixed_bits``: run this level whatever the
    governor says. ``full_interval_s``: the governor's frame interval at full rate, which files
    need not keep.
    """

    max_frames: int | None = None
    duration_s: float | None = None
    target_fps: float | None = None
    fixed_bits: int | None = None
    full_interval_s: float = 0.0


class Pipeline:
    """Runs frames from one source through one model until something ends it.

    ``decided`` may be called from any thread; everything else, the sinks included, happens in
    the thread that calls ``run``. ``branches`` names the branches of each level.
    """

    def __init__(
        self,
        source: Source,
        model: Model,
        branches: dict[int, tuple[int, ...]],
        governor: LevelControl,
        governor_clock: Clock,
        sinks: Sequence[Sink],
        limits: Limits,
        stop: StopRequest,
        clock: Clock | None = None,
    ) -> None:
        self._source = source
        self._model = model
        self._branches = branches
        self._governor = governor
        self._governor_clock = governor_clock
        self._sinks = sinks
        self._limits = limits
        self._stop = stop
        self._clock = RealClock() if clock is None else clock
        self._classes = {label: index for index, label in enumerate(model.labels)}
        self._decisions: queue.SimpleQueue[Decision] = queue.SimpleQueue()
        self._decision: Decision | None = None
        self._seq = 0
        self.seconds = 0.0

    def decided(self, decision: Decision) -> None:
        """Take note of a decision of the governor."""
        self._decisions.put(decision)

    def run(self) -> None:
        """Until the source ends, a limit is reached, a stop is requested or nobody listens.

        AppError from the source (lost) or from a sink passes through. ``seconds`` is then how
        long it ran.
        """
        started = self._clock.now()
        due = started
        try:
            while not self._finished(started):
                self._report_decisions()
                now = self._clock.now()
                if self._governor.paused:
                    self._clock.sleep(SLICE_S)
                    continue
                if now < due:
                    self._clock.sleep(min(due - now, SLICE_S))
                    continue
                frame = self._source.read(SLICE_S)
                if frame is not None:
                    # From when it was due, so that the rate is met on average; a frame that is
                    # too late shifts the later ones instead of being followed by a burst.
                    interval = self._interval()
                    due += interval
                    if due <= now:
                        due = now + interval
                    self._process(frame)
        except (EndOfSource, OutputClosed):
            pass
        finally:
            self.seconds = self._clock.now() - started

    def _finished(self, started: float) -> bool:
        limits = self._limits
        if self._stop.requested:
            return True
        if limits.max_frames is not None and self._seq >= limits.max_frames:
            return True
        return limits.duration_s is not None and self._clock.now() - started >= limits.duration_s

    def _interval(self) -> float:
        """Least seconds from one frame to the next: the slowest of all that have a say.

        A file is read as fast as it goes unless --target-fps or a shed frame rate slows it.
        """
        limits, source = self._limits, self._source
        interval = self._governor.frame_interval_s
        if math.isinf(interval):  # It paused just now; the loop sees that next.
            return 0.0
        is_file = not source.live and source.nominal_fps is None
        if is_file and interval <= limits.full_interval_s * 1.001:
            interval = 0.0
        rates = (limits.target_fps, source.nominal_fps)
        return max(interval, *(1.0 / rate if rate else 0.0 for rate in rates))

    def _report_decisions(self) -> None:
        while True:
            try:
                self._decision = self._decisions.get_nowait()
            except queue.Empty:
                break
            for sink in self._sinks:
                sink.decision(self._decision)
        for sink in self._sinks:
            sink.tick()

    def _process(self, frame: Frame) -> None:
        ceiling = self._governor.level
        fixed = self._limits.fixed_bits
        bits = ceiling if fixed is None else fixed
        height, width, _ = self._model.input_shape
        before = time.perf_counter()
        image = prepare(frame, height, width)
        prepared = time.perf_counter()
        logits = self._model.run(bits, image)
        inferred = time.perf_counter()
        self._governor.observe_latency(bits, inferred - prepared)

        best = int(np.argmax(logits))
        shifted = np.exp(logits - logits[best])
        decision = self._decision
        cause = "none" if decision is None else decision.cause
        record = FrameRecord(
            wall_time=time.time(),
            mono_ns=time.monotonic_ns(),
            seq=self._seq,
            source=self._source.name,
            bits=bits,
            branches=self._branches[bits],
            ceiling_bits=ceiling,
            cause=cause if fixed is None else "fixed",
            capture_s=frame.capture_s,
            preprocess_s=prepared - before,
            infer_s=inferred - prepared,
            temperature_c=decision.temperature_c if decision else None,
            battery=decision.battery_charge if decision else None,
            label=self._model.labels[best],
            class_index=best,
            probability=float(1.0 / shifted.sum()),
            truth=self._classes.get(frame.truth) if frame.truth is not None else None,
            governor_time_s=self._governor_clock.now(),
        )
        self._seq += 1
        for sink in self._sinks:
            sink.frame(record)
