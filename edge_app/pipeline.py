"""Grab, preprocess, infer, report: one frame after the other, at the level the governor allows."""

from __future__ import annotations

import math
import queue
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from edge_app.clock import Clock, RealClock
from edge_app.governor.decision import Event
from edge_app.preprocess import prepare
from edge_app.record import FrameRecord
from edge_app.signals import StopRequest
from edge_app.sinks import OutputClosed, Sink
from edge_app.sources import EndOfSource, Frame, Source, SourceStatus

if TYPE_CHECKING:
    from edge_app.governor import Decision
    from edge_app.governor.decision import LevelControl

SLICE_S = 0.1
"""No wait is longer than this: signals, decisions and the end of the run are looked at between."""


class Model(Protocol):
    """What the pipeline needs of ``native_ops.Program``."""

    @property
    def levels(self) -> tuple[int, ...]: ...
    @property
    def input_shape(self) -> tuple[int, int, int]: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    def run(self, bits: int, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]: ...


class Levels(Protocol):
    """What knows which levels of the model can run without a stall: ``profiles.readiness``."""

    def nearest(self, wanted: int) -> int: ...
    def ran(self, bits: int, seconds: float) -> None: ...


@dataclass(frozen=True)
class Limits:
    """When a run ends and how fast it may go; ``None`` is no limit.

    ``target_fps``: upper bound on the frame rate. ``fixed_bits``: run this level whatever the
    governor says. ``full_interval_s``: the governor's frame interval at full rate, which files
    need not keep. ``stale_after_s``: a live frame that is older is not run; 0 is no limit.
    """

    max_frames: int | None = None
    duration_s: float | None = None
    target_fps: float | None = None
    fixed_bits: int | None = None
    full_interval_s: float = 0.0
    stale_after_s: float = 0.0


@dataclass(frozen=True)
class Answer:
    """The most probable class, its probability, and how far ahead of the second it is."""

    index: int
    probability: float
    margin: float

    @classmethod
    def of(cls, logits: npt.NDArray[np.float32]) -> Answer:
        """From logits of shape (classes,)."""
        index = int(np.argmax(logits))
        shares = np.exp(logits - logits[index])
        total = float(shares.sum())
        second = float(np.partition(shares, -2)[-2]) if shares.size > 1 else 0.0
        return cls(index, 1.0 / total, (1.0 - second) / total)


class Pipeline:
    """Runs frames from one source through one model until something ends it.

    ``decided`` and ``noticed`` may be called from any thread; everything else, the sinks included, happens in
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
        levels: Levels | None = None,
    ) -> None:
        self._source = source
        self._model = model
        self._branches = branches
        self._levels = levels
        self._governor = governor
        self._governor_clock = governor_clock
        self._sinks = sinks
        self._limits = limits
        self._stop = stop
        self._clock = RealClock() if clock is None else clock
        self._classes = {label: index for index, label in enumerate(model.labels)}
        self._news: queue.SimpleQueue[Decision | Event] = queue.SimpleQueue()
        self._decision: Decision | None = None
        self._seq = 0
        self._lost: Counter[str] = Counter()
        self._reported = SourceStatus()
        self.seconds = 0.0

    def decided(self, decision: Decision) -> None:
        """Take note of a decision of the governor."""
        self._news.put(decision)

    def noticed(self, event: Event) -> None:
        """Pass on to the sinks what people should know of."""
        self._news.put(event)

    def switch(
        self, model: Model, branches: dict[int, tuple[int, ...]], levels: Levels | None = None
    ) -> None:
        """Go on with another model from the next frame. Only from the thread that calls ``run``."""
        self._model, self._branches, self._levels = model, branches, levels
        self._classes = {label: index for index, label in enumerate(model.labels)}

    def run(self) -> None:
        """Until the source ends, a limit is reached, a stop is requested or nobody listens.

        AppError from the source (lost) or from a sink passes through. ``seconds`` is then how
        long it ran.
        """
        started = self._clock.now()
        due = started
        try:
            while not self._finished(started):
                self._report_news()
                now = self._clock.now()
                if self._governor.paused:
                    self._shed(SLICE_S)
                    continue
                if now < due:
                    self._shed(min(due - now, SLICE_S))
                    continue
                frame = self._source.read(SLICE_S)
                if frame is not None:
                    if self._is_too_old(frame):
                        continue
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

    def losses(self) -> Counter[str]:
        """Frames of the source that were not classified, by reason: ``capture``, ``stale`` (a newer
        one came while the model was busy), ``shed`` (it came while the governor's frame rate or a
        pause left it out) and ``deadline`` (it was too old when its turn came)."""
        losses = Counter(self._lost)
        losses.update(self._source.losses)
        losses["stale"] -= losses["shed"]
        return +losses

    def _shed(self, seconds: float) -> None:
        """Wait; what a live source overwrites meanwhile is shed and not late."""
        before = self._source.losses.get("stale", 0)
        self._clock.sleep(seconds)
        self._lost["shed"] += self._source.losses.get("stale", 0) - before

    def _is_too_old(self, frame: Frame) -> bool:
        limit = self._limits.stale_after_s
        late = self._source.live and 0 < limit < time.monotonic() - frame.captured
        self._lost["deadline"] += late
        return late

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

    def _report_news(self) -> None:
        while True:
            try:
                news = self._news.get_nowait()
            except queue.Empty:
                break
            for sink in self._sinks:
                if isinstance(news, Event):
                    sink.notice(news)
                else:
                    self._decision = news
                    sink.decision(news)
        self._report_source()
        for sink in self._sinks:
            sink.tick()

    def _report_source(self) -> None:
        """Say once when frames stop coming, and once when they come again."""
        status = self._source.status
        if (status.state, status.text) == (self._reported.state, self._reported.text):
            return
        gone, was_gone = status.state != "up", self._reported.state != "up"
        self._reported = status
        if gone and (not was_gone or status.state == "stalled"):
            event = Event("source_lost", f"{self._source.name}: {status.text}; trying again")
        elif was_gone and not gone:
            times = f"opened again {status.reconnects} times so far"
            event = Event("source_back", f"{self._source.name}: frames come again, {times}")
        else:
            return
        for sink in self._sinks:
            sink.notice(event)

    def _process(self, frame: Frame) -> None:
        ceiling = self._governor.level
        fixed = self._limits.fixed_bits
        bits = self._runnable(self._governor.first_level) if fixed is None else fixed
        height, width, _ = self._model.input_shape
        before = time.perf_counter()
        image = prepare(frame, height, width)
        prepared = time.perf_counter()
        answer = self._infer(bits, image)
        first, first_bits = None, bits
        again = None
        if fixed is None and (bits >= ceiling or self._runnable(ceiling) == ceiling):
            again = self._governor.escalate(bits, answer.margin)
        if again is not None:
            # The whole frame once more: branches of another level see other codes, so that nothing
            # of the first run can be used.
            first, bits = answer, again
            answer = self._infer(bits, image)
        inferred = time.perf_counter()
        age_s = time.monotonic() - frame.captured

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
            age_s=max(0.0, age_s),
            temperature_c=decision.temperature_c if decision else None,
            battery=decision.battery_charge if decision else None,
            label=self._model.labels[answer.index],
            class_index=answer.index,
            probability=answer.probability,
            margin=answer.margin,
            escalated_from=None if first is None else first_bits,
            agreed=None if first is None else first.index == answer.index,
            truth=self._classes.get(frame.truth) if frame.truth is not None else None,
            governor_time_s=self._governor_clock.now(),
        )
        self._seq += 1
        for sink in self._sinks:
            sink.frame(record, frame)

    def _runnable(self, wanted: int) -> int:
        return wanted if self._levels is None else self._levels.nearest(wanted)

    def _infer(self, bits: int, image: npt.NDArray[np.uint8]) -> Answer:
        started = time.perf_counter()
        logits = self._model.run(bits, image)
        taken = time.perf_counter() - started
        self._governor.observe_latency(bits, taken)
        if self._levels is not None:
            self._levels.ran(bits, taken)
        return Answer.of(logits)
