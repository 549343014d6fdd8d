"""A pipeline whose source, governor, clock and sink a test holds in its hands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_app.clock import ManualClock
from edge_app.governor import Decision, Event
from edge_app.models import branches_of
from edge_app.pipeline import Limits, Pipeline
from edge_app.record import FrameRecord
from edge_app.signals import StopRequest
from edge_app.sources import EndOfSource, Frame, Source
from edge_app.sources.digits import DigitsStream
from native_ops import Program


class Unpaced(DigitsStream):
    """The digits as fast as they are read, as a file would be; ends after ``frames``."""

    nominal_fps = None

    def __init__(self, frames: int = 10_000) -> None:
        super().__init__()
        self.left = frames

    def read(self, timeout: float) -> Frame | None:
        if not self.left:
            raise EndOfSource
        self.left -= 1
        return super().read(timeout)


class Control:
    """A governor whose level, rate and pause the test sets."""

    def __init__(self) -> None:
        self.level = 8
        self.first: int | None = None
        self.again: int | None = None
        self.margins: list[float] = []
        self.frame_interval_s = 0.0
        self.paused = False
        self.observed: list[tuple[int, float]] = []

    @property
    def first_level(self) -> int:
        return self.level if self.first is None else self.first

    def escalate(self, bits: int, margin: float) -> int | None:
        self.margins.append(margin)
        return self.again

    def observe_latency(self, bits: int, seconds: float) -> None:
        self.observed.append((bits, seconds))


class Recorder:
    """A sink that keeps everything, with the time at which it came."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.records: list[FrameRecord] = []
        self.times: list[float] = []
        self.decisions: list[Decision] = []
        self.notices: list[Event] = []
        self.on_frame: Callable[[], None] = lambda: None
        self.on_tick: Callable[[], None] = lambda: None

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        self.records.append(record)
        self.times.append(self.clock.now())
        self.on_frame()

    def decision(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def notice(self, event: Event) -> None:
        self.notices.append(event)

    def tick(self) -> None:
        self.on_tick()

    def close(self) -> None:
        pass


class Bench:
    """A pipeline with everything that a test may want to reach."""

    def __init__(
        self,
        model: Program,
        source: Source | None = None,
        clock: ManualClock | None = None,
        **limits: Any,
    ) -> None:
        self.clock = clock or ManualClock(100.0)
        self.governor_clock = ManualClock(7.0)
        self.control = Control()
        self.recorder = Recorder(self.clock)
        self.stop = StopRequest()
        self.pipeline = Pipeline(
            source or Unpaced(),
            model,
            branches_of(model),
            self.control,
            self.governor_clock,
            [self.recorder],
            Limits(**limits),
            self.stop,
            self.clock,
        )

    @property
    def records(self) -> list[FrameRecord]:
        return self.recorder.records
