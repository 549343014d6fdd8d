"""Counts and distributions of a whole run, in constant memory however long it lasts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_app.record import FrameRecord
from edge_app.sinks import Listener

if TYPE_CHECKING:
    from edge_app.governor import Decision
    from edge_app.sources import Frame


class Distribution:
    """Percentiles of positive numbers from logarithmic bins, each 2 % wide: off by 1 % at most."""

    _GROWTH = math.log(1.02)
    _SMALLEST = 1e-6

    def __init__(self) -> None:
        self.count = 0
        self._bins: Counter[int] = Counter()

    def add(self, value: float) -> None:
        """Count ``value``; anything below a microsecond counts as one."""
        self.count += 1
        self._bins[int(math.log(max(value, self._SMALLEST) / self._SMALLEST) / self._GROWTH)] += 1

    def percentile(self, percent: float) -> float | None:
        """The value that ``percent`` of all values do not exceed; None without values."""
        if not self.count:
            return None
        wanted = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for index in sorted(self._bins):
            seen += self._bins[index]
            if seen >= wanted:
                break
        return self._SMALLEST * math.exp((index + 0.5) * self._GROWTH)


@dataclass
class LevelStatistics:
    """What happened at one level."""

    frames: int = 0
    labelled: int = 0
    correct: int = 0
    infer_s: Distribution = field(default_factory=Distribution)

    @property
    def accuracy(self) -> float | None:
        """Share of correct answers among frames whose truth is known."""
        return self.correct / self.labelled if self.labelled else None


class Statistics(Listener):
    """A sink that adds up; the summary is printed from it."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        self.levels = {bits: LevelStatistics() for bits in levels}
        # (bits before, bits after, cause) -> how often
        self.changes: Counter[tuple[int, int, str]] = Counter()
        self.escalated = 0
        self.agreed = 0

    @property
    def frames(self) -> int:
        return sum(level.frames for level in self.levels.values())

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        level = self.levels[record.bits]
        level.frames += 1
        level.infer_s.add(record.infer_s)
        if record.correct is not None:
            level.labelled += 1
            level.correct += record.correct
        if record.escalated_from is not None:
            self.escalated += 1
            self.agreed += record.agreed is True

    def decision(self, decision: Decision) -> None:
        if decision.changed:
            self.changes[decision.previous_bits, decision.bits, decision.cause] += 1
