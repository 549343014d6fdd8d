"""A cap without a scale: pressure is there or it is not, and steps follow."""

from __future__ import annotations

import math


class Backdown:
    """One rung down for every period with pressure, one up for every period without."""

    def __init__(self, top: int, floor: int, period_s: float) -> None:
        self._top = top
        self._floor = floor
        self._period_s = period_s
        self._changed = -math.inf
        self.rung = top

    @property
    def steps(self) -> int:
        """How many rungs below the top it is."""
        return self._top - self.rung

    def update(self, pressure: bool, current: int, now: float) -> int:
        """The rung allowed at ``now``; ``current`` is the one that runs."""
        if now - self._changed >= self._period_s:
            if pressure:
                # From where it runs: a cap above that would step in vain.
                self.rung = max(self._floor, min(self.rung, current) - 1)
                self._changed = now
            elif self.rung < self._top:
                self.rung += 1
                self._changed = now
        return self.rung

    def resize(self, top: int, floor: int, period_s: float) -> None:
        """Go on in a ladder that ends at ``top``, as many steps below it as before."""
        steps = self.steps
        self._top, self._floor, self._period_s = top, floor, period_s
        self.rung = max(floor, top - steps)

    def restore(self, steps: int, now: float) -> None:
        """Go on ``steps`` below the top, as after a change at ``now``; 0: as if new."""
        if steps > 0:
            self.rung = max(self._floor, self._top - steps)
            self._changed = now
