"""A cap without a scale: pressure is there or it is not, and steps follow."""

from __future__ import annotations

import math

from edge_app.governor.ladder import Ladder


class Backdown:
    """One step of ``ladder`` down for every period with pressure, never below ``floor``; one up
    for every period without."""

    def __init__(self, ladder: Ladder, floor: int, period_s: float) -> None:
        self._ladder = ladder
        self._floor = floor
        self._period_s = period_s
        self._changed = -math.inf
        self.rung = ladder.top

    @property
    def steps(self) -> int:
        """How many rungs below the top it is."""
        return self._ladder.top - self.rung

    def update(self, pressure: bool, current: int, now: float) -> int:
        """The rung allowed at ``now``; ``current`` is the one that runs."""
        if now - self._changed >= self._period_s:
            if pressure:
                # From where it runs: a cap above that would step in vain.
                self.rung = max(self._floor, self._ladder.below(min(self.rung, current)))
                self._changed = now
            elif self.steps:
                self.rung = self._ladder.above(self.rung)
                self._changed = now
        return self.rung

    def replace(self, ladder: Ladder, floor: int, period_s: float) -> None:
        """Go on in another ladder, as many rungs below its top as before."""
        steps = self.steps
        self._ladder, self._floor, self._period_s = ladder, floor, period_s
        self.rung = max(floor, ladder.top - steps)

    def restore(self, steps: int, now: float) -> None:
        """Go on ``steps`` rungs below the top, as after a change at ``now``; 0: as if new."""
        if steps > 0:
            self.rung = max(self._floor, self._ladder.top - steps)
            self._changed = now
