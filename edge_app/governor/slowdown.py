"""How much slower frames run than their profile: one scalar Kalman filter for all levels.

The idea is ALERT's (Wan et al., USENIX ATC 2020): contention and throttling slow all levels down
by about the same factor, so that one factor, learned at whichever level runs, predicts them all.
"""

from __future__ import annotations

import math

PROCESS_SHARE = 0.01
"""Variance that the true factor gains from frame to frame, as a share of the observations'. A
fixed share keeps the gain near 0.1: ten frames to follow, whatever the noise."""
INITIAL_VARIANCE = 0.01
INNOVATION_SHARE = 0.05
OUTLIER_DEVIATIONS = 4.0
"""One frame further off than this tells of a hiccup, not of a slow machine: it counts as this
far off. Several in a row widen the deviation quickly and are believed."""
LEAST_NOISE = 1e-4


class Slowdown:
    """Mean and standard deviation of observed time divided by profiled time."""

    def __init__(self) -> None:
        self.mean = 1.0
        self._variance = INITIAL_VARIANCE
        self._noise = INITIAL_VARIANCE

    def observe(self, ratio: float) -> None:
        """Take in one frame's ratio; what is not a positive number is ignored."""
        if not (math.isfinite(ratio) and ratio > 0):
            return
        farthest = OUTLIER_DEVIATIONS * self.deviation
        innovation = min(max(ratio - self.mean, -farthest), farthest)
        prior = self._variance + PROCESS_SHARE * self._noise
        gain = prior / (prior + self._noise)
        self.mean += gain * innovation
        self._variance = (1.0 - gain) * prior
        # What the filter did not foresee is noise of the observations, learned as it goes.
        self._noise += INNOVATION_SHARE * (innovation * innovation - self._noise)
        self._noise = max(self._noise, LEAST_NOISE)

    @property
    def deviation(self) -> float:
        """Of the next frame's ratio around ``mean``."""
        return math.sqrt(self._variance + self._noise)
