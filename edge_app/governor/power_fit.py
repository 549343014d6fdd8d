"""The battery's measured power against the profile's: what of it does not change with the rung, and
how much a watt of the profile really is.

A profile is wrong in two ways: in what the device draws anyway (a screen, a camera, a radio) and in
what frames take. One factor for both would be another factor at every rung, and the budget would go
back and forth between two of them.
"""

from __future__ import annotations

import math

OFFSET_SMOOTHING_S = 60.0
"""What the rest of the device takes may change at any time."""
SLOPE_SMOOTHING_S = 3600.0
"""What a frame takes does not."""
RIDGE = 0.01
"""Share of the power by which the rung must have changed it to tell anything."""
GAIN_RANGE = 0.25, 4.0
"""Of the gain, in terms of measured to predicted power as a whole."""


class PowerFit:
    """Measured power as ``offset_w + gain * active_w``, where ``active_w`` is the profile's.

    The gain is a regression of the measured on the predicted, drawn to their plain ratio as long as
    one rung is all that was seen.
    """

    def __init__(self) -> None:
        self._ratio: float | None = None
        self._active_w = self._measured_w = 0.0
        self._variance = self._covariance = 0.0
        self.offset_w = 0.0
        self.gain = 1.0

    def update(self, measured_w: float, idle_w: float, active_w: float, step_s: float) -> None:
        """``measured_w`` was drawn for ``step_s`` where the profile has ``idle_w + active_w``,
        which is above zero."""
        ratio = measured_w / (idle_w + active_w)
        if self._ratio is None:
            self._ratio, self._active_w, self._measured_w = ratio, active_w, measured_w
            self.gain, self.offset_w = ratio, measured_w - ratio * active_w
            return
        self._ratio += (ratio - self._ratio) * _share(step_s, OFFSET_SMOOTHING_S)
        share = _share(step_s, SLOPE_SMOOTHING_S)
        active, measured = active_w - self._active_w, measured_w - self._measured_w
        self._active_w += active * share
        self._measured_w += measured * share
        self._variance = (1.0 - share) * (self._variance + share * active * active)
        self._covariance = (1.0 - share) * (self._covariance + share * active * measured)
        ridge = (RIDGE * (idle_w + active_w)) ** 2
        slope = (self._covariance + ridge * self._ratio) / (self._variance + ridge)
        low, high = GAIN_RANGE
        gain = min(max(slope, low * self._ratio), high * self._ratio)
        # At the rung that runs the prediction stays what it was.
        self.offset_w += (self.gain - gain) * active_w
        self.gain = gain
        rest = measured_w - self.gain * active_w
        self.offset_w += (rest - self.offset_w) * _share(step_s, OFFSET_SMOOTHING_S)

    def predict(self, active_w: float) -> float:
        """Watts where the profile has ``active_w`` above idling; never below zero."""
        return max(0.0, self.offset_w + self.gain * active_w)


def _share(step_s: float, time_constant_s: float) -> float:
    return 1.0 - math.exp(-step_s / time_constant_s)
