"""The ladder of operating points, from least to most energy: level and frame rate.

Bits alone cannot go low enough: below the lowest level, frames are shed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_app.policy.model import Policy


@dataclass(frozen=True)
class Rung:
    """One operating point. ``fps`` 0: as the source gives frames. ``cost`` in bits at full rate:
    a level's time grows with its branches and so with its bits."""

    bits: int
    fps: float
    cost: float

    @property
    def interval_s(self) -> float:
        """Least seconds from one frame to the next."""
        return 1.0 / self.fps if self.fps > 0 else 0.0

    def exceeds(self, other: Rung) -> bool:
        """Whether this takes more bits a frame or more bits a second than ``other``."""
        return self.bits > other.bits or self._bits_per_s > other._bits_per_s

    @property
    def _bits_per_s(self) -> float:
        return self.bits * self.fps if self.fps > 0 else math.inf


@dataclass(frozen=True)
class Ladder:
    """Rungs in order of cost; ``full`` is the index of the lowest one at full frame rate."""

    rungs: tuple[Rung, ...]
    full: int

    @property
    def top(self) -> int:
        return len(self.rungs) - 1

    def at_most(self, bits: int) -> int:
        """The highest rung of at most ``bits``; the lowest at full rate if there is none."""
        fitting = (index for index, rung in enumerate(self.rungs) if rung.bits <= bits)
        return max(self.full, max(fitting, default=0))

    def not_above(self, point: Rung) -> int:
        """The highest rung that does not exceed ``point``, a rung of another ladder; the lowest
        if all do."""
        fitting = (index for index, rung in enumerate(self.rungs) if not rung.exceeds(point))
        return max(fitting, default=0)


def build_ladder(levels: Sequence[int], policy: Policy) -> Ladder:
    """The rungs for those of ``levels`` (bits) that the policy permits.

    ValueError if it permits none.
    """
    low, high = policy.levels.min_bits, policy.levels.max_bits
    permitted = sorted({bits for bits in levels if low <= bits <= high})
    if not permitted:
        have = ", ".join(str(bits) for bits in sorted(levels))
        raise ValueError(
            f"policy {policy.name}: levels.min_bits..max_bits is {low}..{high}, but the model has "
            f"{have} bits; widen the range or use another model"
        )
    frame = policy.frame
    rungs = [Rung(permitted[0], fps, permitted[0] * share) for fps, share in _shed(policy)]
    full = len(rungs)
    rungs += [Rung(bits, frame.target_fps, float(bits)) for bits in permitted]
    return Ladder(tuple(rungs), full)


def _shed(policy: Policy) -> list[tuple[float, float]]:
    """Frame rates below the full one with their shares of it, from low to high: halved as often as
    ``frame.min_fps`` allows."""
    frame = policy.frame
    if frame.target_fps == 0:
        # As the source gives frames: nobody knows of what these are shares.
        return [(frame.min_fps, 0.25), (2.0 * frame.min_fps, 0.5)]
    shares = []
    share = 0.5
    while frame.target_fps * share >= frame.min_fps:
        shares.append(share)
        share /= 2.0
    return [(frame.target_fps * share, share) for share in reversed(shares)]
