"""The ladder of operating points, from least to most energy: level and frame rate.

Bits alone cannot go low enough: below the lowest level, frames are shed. Nor do they always save: a
CPU that cannot keep up with the frame rate is as busy at 8 bits as at 4. So a rung costs what it is
predicted to take in power, and rungs that take alike are one step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_app.governor.energy import Profile
from edge_app.policy.model import Policy

SAVES = 0.95
"""A rung is a step of its own if it takes less than this share of what the next one takes."""
USUAL_FPS = 30.0
"""What a source is taken to give where the policy leaves the rate to it: a camera's."""


@dataclass(frozen=True)
class Rung:
    """One operating point. ``fps`` 0: as the source gives frames. ``cost``: its power above that
    of the idle device, in the unit in which the ladder's highest rung costs its bits. Two rungs are
    equal if they are the same point, whatever it costs."""

    bits: int
    fps: float
    cost: float = field(default=0.0, compare=False)

    @property
    def name(self) -> str:
        """As people write it: "4 bits, 30 fps"."""
        return f"{self.bits} bits" + (f", {self.fps:g} fps" if self.fps > 0 else "")

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
    """Rungs in order; ``full`` is the index of the lowest one at full frame rate. Neighbours of
    equal cost are one step: going from one to the other neither heats nor saves."""

    rungs: tuple[Rung, ...]
    full: int

    @property
    def top(self) -> int:
        return len(self.rungs) - 1

    def below(self, index: int) -> int:
        """The highest rung of the next step down; the lowest of all if there is none."""
        cost = self.rungs[index].cost
        return next((at for at in range(index, 0, -1) if self.rungs[at].cost < cost), 0)

    def above(self, index: int) -> int:
        """The highest rung of the step that the rung above ``index`` is part of."""
        cost = self.rungs[min(index + 1, self.top)].cost
        return max(at for at, rung in enumerate(self.rungs) if rung.cost <= cost)

    def at_most(self, bits: int) -> int:
        """The highest rung of at most ``bits``; the lowest at full rate if there is none."""
        fitting = (index for index, rung in enumerate(self.rungs) if rung.bits <= bits)
        return max(self.full, max(fitting, default=0))

    def not_above(self, point: Rung) -> int:
        """The highest rung that does not exceed ``point``, a rung of another ladder; the lowest
        if all do."""
        fitting = (index for index, rung in enumerate(self.rungs) if not rung.exceeds(point))
        return max(fitting, default=0)


def build_ladder(levels: Sequence[int], policy: Policy, profile: Profile | None = None) -> Ladder:
    """The rungs for those of ``levels`` (bits) that the policy permits.

    ``profile``: what frames take here; while nothing is known of it, as much as they have bits.
    ValueError if the policy permits none of the levels.
    """
    low, high = policy.levels.min_bits, policy.levels.max_bits
    permitted = sorted({bits for bits in levels if low <= bits <= high})
    if not permitted:
        have = ", ".join(str(bits) for bits in sorted(levels))
        raise ValueError(
            f"policy {policy.name}: levels.min_bits..max_bits is {low}..{high}, but the model has "
            f"{have} bits; widen the range or use another model"
        )
    shed = _shed(policy)
    points = [(permitted[0], fps) for fps in shed]
    points += [(bits, policy.frame.target_fps) for bits in permitted]
    costs = _costs(points, policy.frame.target_fps or USUAL_FPS, profile)
    rungs = (Rung(bits, fps, cost) for (bits, fps), cost in zip(points, costs, strict=True))
    return Ladder(tuple(rungs), len(shed))


def _costs(
    points: Sequence[tuple[int, float]], full_fps: float, profile: Profile | None
) -> list[float]:
    """Of points (bits, frames a second; 0: ``full_fps``) from low to high."""
    active_w = [0.0] * len(points)
    if profile is not None:
        active_w = [profile.watts(bits, fps or full_fps) - profile.idle_w for bits, fps in points]
    if not min(active_w) > 0.0:
        active_w = [bits * (fps or full_fps) for bits, fps in points]
    costs: list[float] = []
    step = math.inf
    for watts in reversed(active_w):
        # What does not save does not count as cheaper, and what is dearer than the next one up
        # least of all: a step costs what its highest rung takes.
        if watts < SAVES * step:
            step = watts
        costs.append(points[-1][0] * (step / active_w[-1]))
    return costs[::-1]


def _shed(policy: Policy) -> list[float]:
    """Frame rates below the full one, from low to high: halved as often as ``frame.min_fps``
    allows."""
    frame = policy.frame
    if frame.target_fps == 0:
        # As the source gives frames: nobody knows of what these are shares.
        return [frame.min_fps, 2.0 * frame.min_fps]
    rates = []
    fps = frame.target_fps / 2.0
    while fps >= frame.min_fps:
        rates.append(fps)
        fps /= 2.0
    return rates[::-1]
