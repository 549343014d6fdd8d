"""What running costs: seconds and joules of a frame at each level, and watts at a rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

STATED_MODEL = "stated model"


@dataclass(frozen=True)
class LevelCost:
    """One frame at one level on an otherwise idle machine.

    ``seconds`` it takes; ``joules`` it needs above what the device needs anyway.
    """

    seconds: float
    joules: float


@dataclass(frozen=True)
class Profile:
    """What the levels cost on this machine.

    ``levels``: by bits. ``idle_w``: watts of the device while no frame runs. ``source``: where
    the joules come from, for people. ``estimated``: levels that have not run yet, from those that have.
    """

    levels: Mapping[int, LevelCost]
    idle_w: float
    source: str
    estimated: frozenset[int] = frozenset()

    @classmethod
    def from_seconds(
        cls,
        seconds: Mapping[int, float],
        idle_w: float,
        active_w: float,
        source: str = STATED_MODEL,
    ) -> Self:
        """The stated model, while nothing has been measured: a frame takes ``active_w`` watts
        more than idling does for as long as it runs. Times that are not positive are left out."""
        levels = {
            bits: LevelCost(taken, active_w * taken)
            for bits, taken in seconds.items()
            if math.isfinite(taken) and taken > 0
        }
        return cls(levels, idle_w, source)

    @property
    def seconds(self) -> dict[int, float]:
        """Seconds of a frame by bits."""
        return {bits: cost.seconds for bits, cost in self.levels.items()}

    def watts(self, bits: int, fps: float) -> float:
        """Watts of the device while ``fps`` frames a second run at ``bits``.

        No more frames run than there is time for; ``fps`` 0 is an unpinned rate: as many as that.
        A level that was never measured counts as the next one above it that was, or as the
        highest of all.
        """
        cost = self.cost(bits)
        if cost is None:
            return self.idle_w
        most = 1.0 / cost.seconds
        return self.idle_w + cost.joules * (min(fps, most) if fps > 0 else most)

    def cost(self, bits: int) -> LevelCost | None:
        """Of a frame at ``bits``; for a level that was never measured see ``watts``. None if none
        was."""
        if not self.levels:
            return None
        known = [level for level in self.levels if level >= bits]
        return self.levels[min(known) if known else max(self.levels)]


@dataclass(frozen=True)
class Use:
    """What ran in a stretch of time: ``fps`` frames a second, for which the profile has ``watts``,
    idling included."""

    fps: float
    watts: float


class Usage:
    """Counts what runs. The frame path adds; the slow loop looks at the sums once in a while, and
    neither waits for the other."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._frames = 0
        self._joules = 0.0
        self._then: tuple[float, int, float] | None = None

    def add(self, bits: int, again: bool = False) -> None:
        """A run at ``bits``; ``again``: of a frame that has been counted."""
        cost = self._profile.cost(bits)
        if cost is not None:
            self._joules += cost.joules
        if not again:
            self._frames += 1

    def since_last(self, now: float) -> Use | None:
        """What ran since the last call; None the first time, or if no time has passed."""
        frames, joules = self._frames, self._joules
        then = self._then
        if then is not None and now <= then[0]:
            return None
        self._then = now, frames, joules
        if then is None:
            return None
        step_s = now - then[0]
        watts = self._profile.idle_w + (joules - then[2]) / step_s
        return Use((frames - then[1]) / step_s, watts)
