"""The arbiter: the lowest cap is the target; the rung goes there no faster than is calm.

Down one rung per ``lower_dwell_s``, or at once where a cap is urgent. Up one rung when every cap
has allowed it for the whole dwell since the last change. A raise that the same cap takes back soon
doubles that rung's dwell, so that a device which cannot hold a rung is not asked again and again.

Knows nothing of clocks: the same caps at the same times give the same moves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_app.governor.caps import CAP_NAMES, Cap
from edge_app.governor.ladder import Ladder, Rung
from edge_app.governor.state import age, finite, number, rows, since, text
from edge_app.policy.model import Stability


@dataclass(frozen=True)
class Move:
    """What the arbiter came to. ``cause``: the cap to name, or ``none``. ``wait_s``: seconds until
    the next rung may be climbed; None if none may."""

    cause: str
    binding: Cap
    wait_s: float | None


class Arbiter:
    """The rung and the memory that keeps it from flapping.

    ``limited``: whether the policy forbids levels that the model has, so that the top of the ladder
    is the policy's doing. Until the first move the lowest rung holds.
    """

    def __init__(self, ladder: Ladder, stability: Stability, limited: bool) -> None:
        self._ladder = ladder
        self._stability = stability
        self._limited = limited
        self._moved = False
        self._restored: Rung | None = None
        self._changed_at = self._lowered_at = self._failed_at = -math.inf
        self._allowed_since: float | None = None
        # By the rung's cost, which means the same in the ladder of another policy.
        self._raised: dict[float, tuple[float, str]] = {}
        self._dwell: dict[float, float] = {}
        self.held_by = "none"
        self.rung = 0

    @property
    def point(self) -> Rung:
        """The operating point."""
        return self._ladder.rungs[self.rung]

    def move(self, caps: Sequence[Cap], now: float) -> Move:
        """Go towards the lowest of ``caps`` as far as is allowed at ``now``; of two that allow the
        same the first is named."""
        binding = min(caps, key=lambda cap: cap.rung)
        target = binding.rung
        reached = cause = self._name(binding)
        if not self._moved:
            cause = self._start(target, cause, now)
        elif target < self.rung:
            self._allowed_since = None
            cause = self._lower(caps, binding, now)
        elif target == self.rung:
            self._allowed_since = None
            self.held_by = cause
        else:
            if self._allowed_since is None:
                self._allowed_since = now
            cause = self.held_by
            if self._wait(target, now) == 0.0:
                self._raise(target, reached, now)
        return Move(cause, binding, self._wait(target, now))

    def restart(self, now: float) -> None:
        """What had been allowed before ``now`` does not count: the dwell starts anew."""
        self._allowed_since = None
        self._changed_at = now

    def replace(self, ladder: Ladder, stability: Stability, limited: bool, now: float) -> None:
        """Go on under another policy, at its highest rung that does not exceed the present one."""
        before = self.point
        self._ladder, self._stability, self._limited = ladder, stability, limited
        self.rung = ladder.not_above(before)
        if self.point != before:
            self.held_by = "policy"
        self.restart(now)

    def fall(self, now: float) -> None:
        """To the lowest rung at once, whatever the caps say."""
        self._moved = True
        self.rung, self.held_by = 0, "failsafe"
        self.restart(now)

    def _name(self, binding: Cap) -> str:
        if binding.rung < self._ladder.top:
            return binding.name
        return "policy" if self._limited else "none"

    def _start(self, target: int, cause: str, now: float) -> str:
        """The first move goes straight to the target, but after a restart not above where it was:
        crashing is no way round the dwell. Returns the cause."""
        self._moved = True
        self._changed_at = now
        kept = target if self._restored is None else self._ladder.not_above(self._restored)
        if kept < target:
            self.rung, self._allowed_since = kept, now
        else:
            self.rung, self.held_by = target, cause
        return self.held_by

    def _lower(self, caps: Sequence[Cap], binding: Cap, now: float) -> str:
        """Down as far as is allowed now. Returns the cap whose doing it is."""
        urgent = min((cap for cap in caps if cap.urgent), key=lambda cap: cap.rung, default=binding)
        if urgent.urgent and urgent.rung < self.rung:
            rung, cause = urgent.rung, urgent.name
        elif now - self._lowered_at >= self._stability.lower_dwell_s:
            rung, cause = self.rung - 1, binding.name
        else:
            return binding.name
        self._note_lowering(rung, cause, now)
        self.rung, self.held_by = rung, cause
        self._changed_at = self._lowered_at = now
        return cause

    def _note_lowering(self, target: int, cause: str, now: float) -> None:
        """A rung that one cap gave and soon took back waits longer the next time."""
        for rung in self._ladder.rungs[target + 1 : self.rung + 1]:
            raised_at, given_by = self._raised.pop(rung.cost, (-math.inf, ""))
            if given_by == cause and now - raised_at < self._stability.revert_s:
                longer = 2.0 * self._dwell_of(rung)
                self._dwell[rung.cost] = min(longer, self._stability.raise_backoff_max_s)
                self._failed_at = now

    def _raise(self, target: int, reached: str, now: float) -> None:
        self.rung += 1
        self._changed_at = self._allowed_since = now
        self._raised[self.point.cost] = now, self.held_by
        if self.rung == target:
            self._allowed_since, self.held_by = None, reached

    def _wait(self, target: int, now: float) -> float | None:
        """Seconds until the next rung may be climbed; None if ``target`` is not above."""
        if target <= self.rung or self._allowed_since is None:
            return None
        if now - self._failed_at >= self._stability.forget_s:
            self._dwell.clear()
        dwell = self._dwell_of(self._ladder.rungs[self.rung + 1])
        return max(0.0, dwell - (now - max(self._changed_at, self._allowed_since)))

    def _dwell_of(self, rung: Rung) -> float:
        return self._dwell.get(rung.cost, self._stability.raise_dwell_s)

    def state(self, now: float) -> dict[str, Any]:
        """What a restart must not forget: the operating point and the back-off."""
        return {
            "bits": self.point.bits,
            "fps": self.point.fps,
            "held_by": self.held_by,
            "failed_s": age(self._failed_at, now),
            "dwell": [[cost, dwell] for cost, dwell in sorted(self._dwell.items())],
            "raised": [
                [cost, age(raised_at, now), given_by]
                for cost, (raised_at, given_by) in sorted(self._raised.items())
            ],
        }

    def restore(self, state: Mapping[str, Any], now: float) -> None:
        """Take over what ``state`` tells; what it does not tell stays as it is."""
        bits = number(state.get("bits"), 1.0, 64.0)
        fps = number(state.get("fps"), 0.0, 1e6)
        held_by = text(state.get("held_by"))
        if bits is not None and fps is not None:
            self._restored = Rung(int(bits), fps, 0.0)
            # Whatever held it down then: if only the next step allows more, a name is needed.
            self.held_by = held_by if held_by in CAP_NAMES else "policy"
        self._failed_at = since(state.get("failed_s"), now)
        for cost, dwell in rows(state.get("dwell"), 2):
            longest = number(dwell, 0.0, self._stability.raise_backoff_max_s)
            if finite(cost) is not None and longest is not None:
                self._dwell[float(cost)] = longest
        for cost, raised_s, given_by in rows(state.get("raised"), 3):
            if finite(cost) is not None and text(given_by) in CAP_NAMES:
                self._raised[float(cost)] = since(raised_s, now), given_by
