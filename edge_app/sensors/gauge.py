"""Whether a fuel gauge can be believed, and what stands in for one. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

from edge_app.sensors.types import Quality
from edge_app.sensors.validators import JumpDetector

STUCK_SHARE = 0.1
"""What must have left the battery, as a share of all it holds, before a gauge that has not moved
is called stuck: ten times the step of a gauge that counts in percent."""

LITHIUM = ("Li-ion", "Li-poly", "Unknown")
CELL_FULL_V = 4.3
"""No cell is charged higher; how many are in series follows from the pack's voltage."""
MOST_CELLS = 4
CELL_DEAD_V = 1.5
"""Below no cell powers anything: the number is something else."""
CELL_CURVE = (
    (3.0, 0.0),
    (3.45, 0.05),
    (3.6, 0.1),
    (3.7, 0.25),
    (3.76, 0.4),
    (3.85, 0.55),
    (3.95, 0.7),
    (4.06, 0.85),
    (4.18, 1.0),
)
"""Open-circuit voltage of a lithium-ion cell against its charge: rounded figures, as cells with
LiCoO2 or NMC cathodes have them, within 10 points."""


def charge_at_rest(volts: float, technology: str) -> float | None:
    """Charge 0..1 of a pack that says no more than its voltage, as UPS boards do.

    Under load the voltage sags and the charge looks lower than it is: the safe direction. None
    for other chemistries (LiFePO4 is flat: its voltage tells nothing), and for voltages that no
    pack of 1 to 4 cells has.
    """
    cells = math.ceil(volts / CELL_FULL_V)
    if technology not in LITHIUM or not 1 <= cells <= MOST_CELLS:
        return None
    cell = volts / cells
    if cell < CELL_CURVE[0][0]:
        return 0.0 if cell > CELL_DEAD_V else None
    for (low, empty), (high, full) in pairwise(CELL_CURVE):
        if cell < high:
            return empty + (full - empty) * (cell - low) / (high - low)
    return 1.0


@dataclass
class GaugeWatch:
    """Finds gauges that leap, and gauges that stand still while the battery is drained."""

    _jumps: JumpDetector = field(default_factory=JumpDetector)
    _value: float | None = None
    _time: float = 0.0
    _drained_j: float = 0.0

    def judge(
        self, fraction: float, time: float, drain_w: float | None, full_j: float | None
    ) -> tuple[Quality, str]:
        """What ``fraction`` is worth, and why if not OK.

        ``drain_w``: power out of the battery, None if not known or not discharging;
        ``full_j``: what it holds, None if not known.
        """
        if fraction != self._value or drain_w is None:
            self._value, self._drained_j = fraction, 0.0
        else:
            self._drained_j += drain_w * max(0.0, time - self._time)
        self._time = time
        if self._jumps.jumped(fraction, time):
            return Quality.IMPLAUSIBLE, f"the gauge jumped to {fraction:.0%}"
        if full_j is not None and self._drained_j > STUCK_SHARE * full_j:
            wh = self._drained_j / 3600.0
            return Quality.STUCK, f"stays at {fraction:.0%} although {wh:.1f} Wh were drawn"
        return Quality.OK, ""
