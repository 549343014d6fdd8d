"""What the page and the metrics are made of: a sink that keeps the newest of everything and counts.

The pipeline's thread and the governor's write, the server's thread reads. A frame costs a few
additions; nothing is encoded, sorted or waited for here.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_app.record import FrameRecord
from edge_app.serve.series import Point, Series

if TYPE_CHECKING:
    from edge_app.governor import Decision, Event, Policy
    from edge_app.sensors import Sample, SensorSource, SensorStatus
    from edge_app.sources import Frame, SourceStatus

NEWEST_FRAMES = 256
"""Percentiles on the page are those of so many frames."""
LOSSES_EVERY_S = 0.5
POINT_EVERY_S = 1.0
STAGE_BOUNDS_S = tuple(step * 10.0**power for power in range(-4, 1) for step in (1.0, 2.5, 5.0))
DEADLINE_SHARES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
USUAL_DEADLINE_S = 0.1
"""What the histogram is made for where the policy has no deadline."""


@dataclass(frozen=True)
class About:
    """What runs, and where to ask.

    ``journal``: the state of `edge-app why`. ``losses``: frames lost so far by reason, ``output``
    among them. ``status``: of the source. Both are called from the pipeline's thread only.
    ``policy``: the one that holds now. ``branches``: which a level runs, by bits. ``reload``: look
    at the policy's files now. ``target_fps``: the bound on the frame rate that the user gave. ``speed``: how much faster than real the
    governor's time passes.
    """

    model: str
    model_path: str
    source: str
    branches: Mapping[int, tuple[int, ...]]
    journal: Callable[[], dict[str, Any]]
    policy: Callable[[], Policy]
    losses: Callable[[], Mapping[str, int]]
    status: Callable[[], SourceStatus]
    reload: Callable[[], None]
    target_fps: float | None = None
    speed: float = 1.0


class Histogram:
    """Counts by upper bound, and the sum, as Prometheus has them; one writer."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Newest:
    """The last ``size`` values; one writer, and readers at any time."""

    def __init__(self, size: int) -> None:
        self._values = [0.0] * size
        self._count = 0

    def add(self, value: float) -> None:
        self._values[self._count % len(self._values)] = value
        self._count += 1

    def percentiles(self, *percents: float) -> tuple[float | None, ...]:
        """The values that so many percent do not exceed; None without values."""
        known = sorted(self._values[: min(self._count, len(self._values))])
        if not known:
            return (None,) * len(percents)
        return tuple(
            known[min(len(known) - 1, int(len(known) * percent / 100))] for percent in percents
        )


@dataclass
class Counts:
    """Totals since the start. ``changes``: by direction and cause."""

    frames: int = 0
    deadline_missed: int = 0
    escalations: int = 0
    branch_frames: Counter[int] = field(default_factory=Counter)
    labels_right: int = 0
    labels_known: int = 0
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    losses: dict[str, int] = field(default_factory=dict)
    joules: float = 0.0


@dataclass
class Lowest:
    """The hottest moment and the lowest level since the last point of the curves."""

    bits: int | None = None
    cause: str = "none"
    temperature_c: float | None = None
    forecast_c: float | None = None

    def add(self, decision: Decision) -> None:
        if self.bits is None or decision.bits < self.bits:
            self.bits, self.cause = decision.bits, decision.cause
        for name in ("temperature_c", "forecast_c"):
            value, known = getattr(decision, name), getattr(self, name)
            if value is not None and (known is None or value > known):
                setattr(self, name, value)


class Hub:
    """A sink, see ``edge_app.sinks``. Plain attributes are the newest of what their names say.

    ``now`` and ``wall``: a monotonic clock and seconds since the epoch.
    """

    def __init__(
        self,
        about: About,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.about = about
        self.now = now
        self.wall = wall
        self.started = now()
        self.counts = Counts()
        self.series = Series()
        self.record: FrameRecord | None = None
        self.frame_newest: Frame | None = None
        self.decision_newest: Decision | None = None
        self.sample: Sample | None = None
        self.status: SourceStatus | None = None
        self.policy_accepted = True
        self.fixed = False
        self.frame_at: float | None = None
        self.decision_at: float | None = None
        self.tick_at: float | None = None
        self.closed = False
        deadline_s = about.policy().frame.deadline_ms * 1e-3 or USUAL_DEADLINE_S
        self.latency = Histogram(tuple(share * deadline_s for share in DEADLINE_SHARES))
        self.stages = {
            name: Histogram(STAGE_BOUNDS_S) for name in ("capture", "preprocess", "infer")
        }
        self.infer_s = Newest(NEWEST_FRAMES)
        self.age_s = Newest(NEWEST_FRAMES)
        self.fps = 0.0
        self._deadline_s = self.deadline_s
        self._losses_at = 0.0
        self._lock = threading.Lock()
        self._lowest = Lowest()
        self._pointed = self.started
        self._pointed_frames = 0

    # A sink's methods: the pipeline's thread ---------------------------------------------------

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        counts = self.counts
        counts.frames += 1
        counts.deadline_missed += 0.0 < self._deadline_s < record.infer_s
        counts.escalations += record.escalated_from is not None
        counts.branch_frames[len(record.branches)] += 1
        if record.correct is not None:
            counts.labels_known += 1
            counts.labels_right += record.correct
        self.latency.add(record.age_s)
        self.stages["capture"].add(record.capture_s)
        self.stages["preprocess"].add(record.preprocess_s)
        self.stages["infer"].add(record.infer_s)
        self.infer_s.add(record.infer_s)
        self.age_s.add(record.age_s)
        self.fixed = record.cause == "fixed"
        self.record, self.frame_newest, self.frame_at = record, frame, self.now()

    def decision(self, decision: Decision) -> None:
        if decision.changed:
            up = decision.bits > decision.previous_bits or (
                decision.bits == decision.previous_bits
                and self.decision_newest is not None
                and decision.rung > self.decision_newest.rung
            )
            self.counts.changes["up" if up else "down", decision.cause] += 1
        self.decision_newest, self.decision_at = decision, self.now()
        with self._lock:
            self._lowest.add(decision)

    def notice(self, event: Event) -> None:
        if event.kind in ("policy_changed", "policy_rejected"):
            self.policy_accepted = event.kind == "policy_changed"

    def tick(self) -> None:
        self.tick_at = now = self.now()
        if now - self._losses_at < LOSSES_EVERY_S:
            return
        self._losses_at = now
        self.status = self.about.status()
        self._deadline_s = self.deadline_s
        # A counter must not fall: how a loss is named may be corrected later.
        before = self.counts.losses
        losses = self.about.losses()
        self.counts.losses = {
            reason: max(losses.get(reason, 0), before.get(reason, 0))
            for reason in before.keys() | losses.keys()
        }

    def close(self) -> None:
        self.closed = True

    # The governor's thread ---------------------------------------------------------------------

    def watched(self, sensors: SensorSource) -> SensorSource:
        """``sensors``, whose samples the hub sees too."""
        return _Watched(sensors, self._sampled)

    def _sampled(self, sample: Sample) -> None:
        before, self.sample = self.sample, sample
        power = sample.power
        if before is not None and power.ok and power.value is not None:
            self.counts.joules += max(0.0, power.value) * max(0.0, sample.time - before.time)

    # The server's thread -----------------------------------------------------------------------

    @property
    def deadline_s(self) -> float:
        """Seconds that an inference may take; 0: no deadline."""
        return self.about.policy().frame.deadline_ms * 1e-3

    def pulse(self) -> None:
        """Add a point to the curves if it is time for one."""
        now = self.now()
        elapsed = now - self._pointed
        if elapsed < POINT_EVERY_S:
            return
        with self._lock:
            lowest, self._lowest = self._lowest, Lowest()
        frames = self.counts.frames
        self.fps = (frames - self._pointed_frames) / elapsed
        self._pointed, self._pointed_frames = now, frames
        decision, record = self.decision_newest, self.record
        if lowest.bits is None and decision is not None:
            lowest.add(decision)
        bits, cause = lowest.bits, lowest.cause
        if self.fixed and record is not None:
            bits, cause = record.bits, record.cause
        # Without frames there is no latency: the last one would be drawn on for ever.
        known = self.infer_s.percentiles(50, 95, 99) if self.fps else (None, None, None)
        age = self.age_s.percentiles(95)[0] if self.fps else None
        p50, p95, p99 = (_milliseconds(value) for value in known)
        self.series.add(
            Point(
                number=0,
                time=now,
                bits=bits,
                cause=cause,
                temperature_c=lowest.temperature_c,
                forecast_c=lowest.forecast_c,
                battery=decision.battery_charge if decision else None,
                fps=self.fps,
                p50_ms=p50,
                p95_ms=p95,
                p99_ms=p99,
                age_ms=_milliseconds(age),
            )
        )


class _Watched:
    """A source of samples that shows each of them to somebody else."""

    def __init__(self, sensors: SensorSource, seen: Callable[[Sample], None]) -> None:
        self._sensors = sensors
        self._seen = seen

    def sample(self) -> Sample:
        sample = self._sensors.sample()
        self._seen(sample)
        return sample

    def describe(self) -> list[SensorStatus]:
        return self._sensors.describe()


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
