"""Random numbers that are the same on every machine."""

from __future__ import annotations

import random

PIECES = 4
PIECE_BITS = 16
_MASK = (1 << PIECE_BITS) - 1
_MEAN = PIECES * _MASK / 2.0
# The variance of a uniform integer 0..n-1 is (n*n - 1) / 12; four of them: a third of n*n.
_SCALE = 1.7320508075688772 / (1 << PIECE_BITS)


class Noise:
    """Integers of the Mersenne Twister, and what + - * / make of them: no libm, no surprises."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def draw(self, deviation: float) -> float:
        """Roughly normal with mean 0: the sum of four uniform numbers, within 3.5 deviations."""
        bits = self._random.getrandbits(PIECES * PIECE_BITS)
        total = (bits & _MASK) + (bits >> 16 & _MASK) + (bits >> 32 & _MASK) + (bits >> 48)
        return deviation * ((total - _MEAN) * _SCALE)

    def uniform(self, low: float, high: float) -> float:
        """Evenly from ``low`` to ``high``."""
        return low + (high - low) * (self._random.getrandbits(32) / 4294967296.0)

    def below(self, count: int) -> int:
        """An integer from 0 to ``count`` - 1."""
        return self._random.getrandbits(32) % count

    def chance(self, one_in: int) -> bool:
        """True once in ``one_in`` calls on average."""
        return self.below(one_in) == 0
