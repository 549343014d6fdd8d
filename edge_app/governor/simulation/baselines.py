"""What others do, in the governor's place: the same interface, none of its memory.

They stay in every comparison, so that "calmer at the same temperature" is a figure of the run
and not a claim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_app.governor.decision import LevelControl
from edge_app.sensors import Sample

THRESHOLD_C = 75.0
THRESHOLD_PERIOD_S = 2.0
TIERS_C = ((65.0, 6), (72.0, 4), (78.0, 2))
"""At or above so many deg C at most so many bits."""


class Step(Protocol):
    """What the simulation needs of a decision."""

    @property
    def rung(self) -> int: ...
    @property
    def changed(self) -> bool: ...
    @property
    def why(self) -> str: ...


class Controller(LevelControl, Protocol):
    """What the simulation needs of a governor; ours has it, too."""

    def step(self, sample: Sample) -> Step: ...


@dataclass(frozen=True)
class Choice:
    """A baseline's decision."""

    rung: int
    changed: bool
    why: str


Rule = Callable[[float, int, float], int]
"""(hottest zone in deg C, present rung, seconds) -> rung."""


class Baseline:
    """One rule over the levels at full frame rate; the hottest zone is all it looks at."""

    def __init__(self, levels: Sequence[int], fps: float, rule: Rule) -> None:
        self._levels = sorted(levels)
        self._interval = 1.0 / fps if fps > 0 else 0.0
        self._rule = rule
        self._rung = len(self._levels) - 1
        self._started = False

    @property
    def level(self) -> int:
        return self._levels[self._rung]

    @property
    def first_level(self) -> int:
        return self.level

    @property
    def frame_interval_s(self) -> float:
        return self._interval

    @property
    def paused(self) -> bool:
        return False

    def observe_latency(self, bits: int, seconds: float) -> None:
        """Frames tell a baseline nothing."""

    def escalate(self, bits: int, margin: float) -> int | None:
        """A baseline keeps every result."""
        return None

    def step(self, sample: Sample) -> Choice:
        """Apply the rule; what cannot be read is left out, as tools do."""
        readable = [zone.reading.value for zone in sample.zones if zone.reading.value is not None]
        before = self._rung
        if readable:
            celsius = max(readable)
            wanted = self._rule(celsius, before, sample.time)
            self._rung = max(0, min(len(self._levels) - 1, wanted))
        changed, self._started = self._started and self._rung != before, True
        return Choice(self._rung, changed, "")


def static(levels: Sequence[int], fps: float, bits: int) -> Baseline:
    """Always ``bits``."""
    rung = sorted(levels).index(bits)
    return Baseline(levels, fps, lambda celsius, present, now: rung)


def one_threshold(levels: Sequence[int], fps: float) -> Baseline:
    """The lowest level above 75 deg C, else the highest, looked at every two seconds."""
    due = 0.0

    def rule(celsius: float, present: int, now: float) -> int:
        nonlocal due
        if now < due:
            return present
        due = now + THRESHOLD_PERIOD_S
        return 0 if celsius > THRESHOLD_C else len(levels) - 1

    return Baseline(levels, fps, rule)


def tier_table(levels: Sequence[int], fps: float) -> Baseline:
    """Four temperature bands without hysteresis."""

    def rule(celsius: float, present: int, now: float) -> int:
        most = min((bits for bound, bits in TIERS_C if celsius >= bound), default=max(levels))
        return sum(1 for bits in levels if bits <= most) - 1

    return Baseline(levels, fps, rule)


def step_wise(levels: Sequence[int], fps: float, trip_c: float) -> Baseline:
    """The kernel's `step_wise` governor with levels for cooling states, polled every second: at
    the trip and rising one state cooler, below it and falling one state warmer
    (drivers/thermal/gov_step_wise.c)."""
    last: float | None = None

    def rule(celsius: float, present: int, now: float) -> int:
        nonlocal last
        trend = 0.0 if last is None else celsius - last
        last = celsius
        if celsius >= trip_c and trend > 0:
            return present - 1
        if celsius < trip_c and trend < 0:
            return present + 1
        return present

    return Baseline(levels, fps, rule)


def baselines(levels: Sequence[int], fps: float, trip_c: float) -> dict[str, Baseline]:
    """All of them by name. ``fps``: their frame rate; ``trip_c``: where step_wise holds."""
    low, high = min(levels), max(levels)
    return {
        f"static {high}": static(levels, fps, high),
        f"static {low}": static(levels, fps, low),
        "one threshold": one_threshold(levels, fps),
        "tier table": tier_table(levels, fps),
        "step_wise": step_wise(levels, fps, trip_c),
    }
