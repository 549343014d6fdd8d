"""What a fuel gauge and a power model say together: how full, and how fast it empties.

Gauges move in steps, often of 1 %, and some only once a minute. Between two steps the energy spent
since says where the charge is; over many steps the charge that fell for the energy spent says by
how much the model of that energy is wrong. Neither needs to know what the battery holds.
"""

from __future__ import annotations

import math
from typing import Any

from edge_app.governor.state import number, table

STEP = 0.01
"""Fraction of the charge by which most gauges move."""
LARGEST_STEP = 0.05
"""A gauge that falls by more at once has not been emptied: it has changed its mind."""
RISE = 0.05
"""So has one that rises by more. What rises by less is noise."""
PRIOR = 0.01
"""The stated capacity counts as much as having seen so much charge fall."""
MEMORY = 0.05
"""Falls weigh less by e for every further fall of so much: conditions change."""
KNOWN = 0.02
"""Without a stated capacity, falls of so much in all are needed before anything is known."""
NOISE = 0.015
"""A gauge that rises by more from one reading to the next while charge is used, by more than the step
by which a good one goes back and forth, ..."""
NOISY_S = 900.0
"""... and again within this, is a noisy one until it has not for so long, ..."""
NOISE_SMOOTHING_S = 300.0
"""... and so slowly the model's charge is drawn to what it says."""
STUCK_STEPS = 3.0
"""Steps that the model has seen pass, and the gauge has not, until the model is believed."""


class Gauge:
    """Charge between the steps, and charge per joule. Fractions are of the full battery.

    ``level``: what is there, as far as gauge and model can tell; None until it is read. Whatever a
    gauge rounds to, its step down to a value means that at least this value is left: the level is
    set to it, so that it is too low by a step at most, and goes on with the model from there. A noisy
    gauge has no such steps: the level goes with the model, and slowly to where the gauge is on average.
    """

    def __init__(self) -> None:
        self.level: float | None = None
        self.full_j: float | None = None
        self._step = STEP
        self._lowest: float | None = None
        self._said = 1.0
        self._rise_s = math.inf
        self._noisy = False
        self._on_step = False
        self._pending_j = 0.0
        self._fallen = 0.0
        self._spent_j = 0.0
        self._prior = PRIOR

    @property
    def per_joule(self) -> float | None:
        """Fraction of charge that a joule of the model takes; None while it is not known."""
        if self.full_j is not None:
            spent_j = self._spent_j + self._prior * self.full_j
            return (self._fallen + self._prior) / spent_j
        return self._fallen / self._spent_j if self.learned else None

    @property
    def learned(self) -> bool:
        """Whether enough of the charge has been seen to fall to tell more than was stated."""
        return self._fallen >= KNOWN

    @property
    def stuck(self) -> bool:
        """Whether it has stood still while by the model several of its steps have been spent."""
        per_joule = self.per_joule
        if per_joule is None:
            return False
        return per_joule * self._pending_j > STUCK_STEPS * self._step

    def spend(self, joules: float) -> None:
        """By the model, so much has been taken since the last call."""
        per_joule = self.per_joule
        self._pending_j += joules
        if self.level is not None and per_joule is not None:
            self.level = max(0.0, self.level - per_joule * joules)

    def read(self, charge: float, in_use: bool = True, step_s: float = 0.0) -> None:
        """The gauge says ``charge`` (0..1), ``step_s`` after it was last read. ``in_use``: whether it
        is sure that charge is being used; else a gauge that stands still may be right."""
        self._listen(charge, step_s)
        if self._noisy and self.level is not None and abs(charge - self.level) <= LARGEST_STEP:
            share = 1.0 - math.exp(-step_s / NOISE_SMOOTHING_S)
            charge = self.level = self.level + (charge - self.level) * share
        if self._lowest is None or not self._lowest - LARGEST_STEP <= charge <= self._lowest + RISE:
            self.restart()
            self._lowest = self.level = charge
            return
        fall = self._lowest - charge
        if fall > 0.0:
            self._lowest = charge
            self._step = max(STEP, fall)
            # The first step began somewhere: what it took tells nothing.
            if self._on_step and self._pending_j > 0.0:
                kept = math.exp(-fall / MEMORY)
                self._fallen = self._fallen * kept + fall
                self._spent_j = self._spent_j * kept + self._pending_j
                self._prior *= kept
            self._on_step = True
            self._pending_j = 0.0
        assert self.level is not None
        self.level = min(self.level, charge)
        if not (in_use and self.stuck):
            self.level = max(self.level, charge - self._step)

    def _listen(self, charge: float, step_s: float) -> None:
        """Find out whether its readings go up and down by more than it steps."""
        rise, self._said = charge - self._said, charge
        self._rise_s += step_s
        again = self._rise_s <= NOISY_S
        self._noisy = self._noisy and again
        if self._lowest is None or not NOISE < rise <= RISE:
            return
        self._rise_s = 0.0
        if again and not self._noisy:
            # What was learned so far took noise for charge.
            self._fallen = self._spent_j = self._pending_j = 0.0
            self._prior, self._on_step, self._lowest = PRIOR, False, self.level
            self._noisy = True

    def restart(self) -> None:
        """Forget where the charge was (a charger, a suspend, a jump), keep what was learned."""
        self.level = self._lowest = None
        self._on_step = False
        self._pending_j = 0.0

    def unlearn(self) -> None:
        """Forget what was learned: the energy to come is counted in another way."""
        self.restart()
        self._fallen = self._spent_j = 0.0
        self._prior = PRIOR

    def state(self) -> dict[str, Any]:
        """What was learned, JSON-able."""
        return {
            "fallen": self._fallen,
            "spent_j": self._spent_j,
            "prior": self._prior,
            "noisy": self._noisy,
        }

    def restore(self, state: object) -> bool:
        """Take up what ``state`` gave; False, and nothing is changed, if it is anything else."""
        entries = table(state)
        fallen = number(entries.get("fallen"), 0.0, 1.0)
        spent_j = number(entries.get("spent_j"), 0.0, math.inf)
        prior = number(entries.get("prior"), 0.0, PRIOR)
        if fallen is None or spent_j is None or prior is None:
            return False
        if (fallen > 0.0) is not (spent_j > 0.0):
            return False
        self._fallen, self._spent_j, self._prior = fallen, spent_j, prior
        self._noisy = entries.get("noisy") is True
        self._rise_s = 0.0 if self._noisy else math.inf
        return True
