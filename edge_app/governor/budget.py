"""The budget for `until`: which rung lasts, with what is in the battery.

After the goal-directed adaptation of Odyssey (Flinn and Satyanarayanan, SOSP 1999): demand is what
is drawn now, projected to the end; supply is what is left. The rung falls as soon as demand is
above supply and rises when it is clearly below. The charge tiers of the policy are foreseen: what
they are going to save near the end can be spent before.
"""

from __future__ import annotations

from collections.abc import Sequence

RAISE_SHARE = 0.02
"""A raise needs so much of the supply to spare, ..."""
RAISE_CHARGE = 0.01
"""... and so much of the full battery."""


def lasts_s(
    charge: float,
    reserve: float,
    rung: int,
    drain: Sequence[float],
    tiers: Sequence[tuple[float, int]] = (),
) -> float:
    """Seconds until ``charge`` is down to ``reserve`` if ``rung`` runs as long as the tiers let it.

    ``drain``: fraction of charge per second by rung. ``tiers``: below which charge, which rung at
    most. All charges are fractions of the full battery.
    """
    seconds = 0.0
    while charge > reserve:
        allowed = min([rung, *(most for below, most in tiers if charge <= below)])
        floor = max([reserve, *(below for below, _ in tiers if below < charge)])
        if drain[allowed] <= 0.0:
            return float("inf")
        seconds += (charge - floor) / drain[allowed]
        charge = floor
    return seconds


def with_margin(charge: float, reserve: float) -> float:
    """The charge that a raise may count on."""
    return charge - max(0.0, charge - reserve) * RAISE_SHARE - RAISE_CHARGE


class Budget:
    """The rung that lasts until a given time. ``rung`` is what it allows; ``short``: whether not
    even the lowest one lasts."""

    def __init__(
        self,
        top: int,
        reserve: float,
        tiers: Sequence[tuple[float, int]],
        every_s: float,
        raise_s: float,
    ) -> None:
        self._reserve = reserve
        self._tiers = tuple(tiers)
        self._every_s = every_s
        self._raise_s = raise_s
        self._looked_at: float | None = None
        self._allowed_since: float | None = None
        self._top = top
        self.rung = top
        self.short = False

    def lasts_s(self, charge: float, rung: int, drain: Sequence[float]) -> float:
        """Seconds from ``charge`` to the reserve; see ``lasts_s`` of this module."""
        return lasts_s(charge, self._reserve, rung, drain, self._tiers)

    def spare(self, charge: float, need_s: float, drain: float) -> float:
        """Fraction of charge per second that can be spent beside ``drain`` and still lasts."""
        supply = with_margin(charge, self._reserve) - self._reserve
        return max(0.0, supply / need_s - drain) if need_s > 0.0 else 0.0

    def update(self, charge: float, need_s: float, drain: Sequence[float], now: float) -> int:
        """The rung at ``now`` for a battery at ``charge`` that must last ``need_s``."""
        if self._looked_at is None:
            fitting = (
                rung for rung in range(self._top + 1) if self._rises(charge, need_s, drain, rung)
            )
            self.rung = max(fitting, default=0)
            self._looked_at = now
        elif now - self._looked_at >= self._every_s:
            self._looked_at = now
            self._step(charge, need_s, drain, now)
        else:
            return self.rung
        # Once short it takes a margin to be sure that it is not.
        supply = with_margin(charge, self._reserve) if self.short else charge
        self.short = self.lasts_s(supply, 0, drain) < need_s
        return self.rung

    def restart(self) -> None:
        """Choose afresh at the next update: a charger has been there."""
        self._looked_at = self._allowed_since = None
        self.rung, self.short = self._top, False

    def _step(self, charge: float, need_s: float, drain: Sequence[float], now: float) -> None:
        if self.rung > 0 and self.lasts_s(charge, self.rung, drain) < need_s:
            saves = (at for at in range(self.rung, 0, -1) if drain[at] < drain[self.rung])
            self.rung = next(saves, 0)
            self._allowed_since = None
        elif self.rung < self._top and self._rises(charge, need_s, drain, self.rung + 1):
            if self._allowed_since is None:
                self._allowed_since = now
            if now - self._allowed_since >= self._raise_s:
                dear = drain[self.rung + 1]
                self.rung = max(at for at in range(self._top + 1) if drain[at] <= dear)
                self._allowed_since = None
        else:
            self._allowed_since = None

    def _rises(self, charge: float, need_s: float, drain: Sequence[float], rung: int) -> bool:
        return self.lasts_s(with_margin(charge, self._reserve), rung, drain) >= need_s
