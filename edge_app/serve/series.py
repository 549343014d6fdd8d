"""Curves of the last ten minutes, hour and day, in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Point:
    """One point of every curve. ``time``: seconds of a monotonic clock; ``number`` counts points of
    its span. Latencies in milliseconds; ``fps`` frames a second; None where nothing is known."""

    number: int
    time: float
    bits: int | None
    cause: str
    temperature_c: float | None
    forecast_c: float | None
    battery: float | None
    fps: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    age_ms: float | None


NAMES = tuple(field.name for field in fields(Point) if field.name not in ("number", "time"))


@dataclass(frozen=True)
class Span:
    """``points`` points of ``step_s`` seconds each."""

    name: str
    text: str
    step_s: float
    points: int


SPANS = (
    Span("minutes", "10 minutes", 1.0, 600),
    Span("hour", "1 hour", 10.0, 360),
    Span("day", "24 hours", 240.0, 360),
)


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def merged(points: Sequence[Point]) -> Point:
    """One point for several: the hottest, the slowest, the lowest level with its cause, so that
    nothing that somebody looks for is averaged away; battery and time of the last."""
    levels = [point for point in points if point.bits is not None]
    lowest = min(levels, key=lambda point: point.bits or 0, default=points[-1])
    return replace(
        points[-1],
        bits=lowest.bits,
        cause=lowest.cause,
        temperature_c=_highest(point.temperature_c for point in points),
        forecast_c=_highest(point.forecast_c for point in points),
        fps=sum(point.fps for point in points) / len(points),
        p50_ms=_highest(point.p50_ms for point in points),
        p95_ms=_highest(point.p95_ms for point in points),
        p99_ms=_highest(point.p99_ms for point in points),
        age_ms=_highest(point.age_ms for point in points),
    )


class Series:
    """Points of the finest span come in, those of the coarser ones are made of them."""

    def __init__(self, spans: Sequence[Span] = SPANS) -> None:
        self._spans = {span.name: span for span in spans}
        self._kept = {span.name: deque[Point](maxlen=span.points) for span in spans}
        self._pending: dict[str, list[Point]] = {span.name: [] for span in spans[1:]}
        self._numbers = dict.fromkeys(self._spans, 0)
        self._finest = spans[0].name

    def add(self, point: Point) -> None:
        """Take in the next point of the finest span."""
        self._keep(self._finest, point)
        for name, pending in self._pending.items():
            # By time and not by count: the finest points may have gaps.
            if pending and point.time - pending[0].time >= self._spans[name].step_s:
                self._keep(name, merged(pending))
                pending.clear()
            pending.append(point)

    def _keep(self, name: str, point: Point) -> None:
        self._numbers[name] += 1
        self._kept[name].append(replace(point, number=self._numbers[name]))

    def points(self, name: str) -> list[Point]:
        """Of a span, oldest first. KeyError if there is none of that name."""
        return list(self._kept[name])

    @property
    def newest(self) -> Point | None:
        """Of the finest span."""
        kept = self._kept[self._finest]
        return kept[-1] if kept else None

    def to_json(self, name: str, now: float, wall: float) -> dict[str, Any]:
        """A span as columns. ``now`` and ``wall``: the same moment on the monotonic clock and in
        seconds since the epoch; a wall clock that was set does not bend the curves."""
        points = self.points(name)
        return {
            "span": name,
            "step_s": self._spans[name].step_s,
            "number": points[-1].number if points else 0,
            "t": [round(wall - (now - point.time), 2) for point in points],
            **{column: [_rounded(getattr(point, column)) for point in points] for column in NAMES},
        }


def point_json(point: Point, now: float, wall: float) -> dict[str, Any]:
    """One point as ``Series.to_json`` has it."""
    values = {name: _rounded(getattr(point, name)) for name in NAMES}
    return {"number": point.number, "t": round(wall - (now - point.time), 2), **values}


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
