"""The arbiter: the lowest cap is the target; the rung goes there no faster than is calm.

Down one step per ``lower_dwell_s``, or at once where a cap is urgent. Up one step when every cap
has allowed it for the whole dwell since the last change. A step is a rung, or all rungs of the
same cost: to go through those one by one would be change without effect. A raise that the same cap
takes back soon doubles that rung's dwell, so that a device which cannot hold a rung is not asked
again and again.

Knows nothing of clocks: the same caps at the same times give the same moves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_app.governor.caps import CAP_NAMES, Cap
from edge_app.governor.ladder import Ladder, Rung
from edge_app.governor.state import age, number, rows, since, text
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
        # By the lowest rung that was climbed: a point, which is the same in another ladder.
        self._raised: dict[Rung, tuple[float, str]] = {}
        self._dwell: dict[Rung, float] = {}
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
            step = self._ladder.below(self.rung)
            # Where a cap holds within a step, it means the level and not the power.
            rung, cause = step if binding.rung <= step else self.rung - 1, binding.name
        else:
            return binding.name
        self._note_lowering(rung, cause, now)
        self.rung, self.held_by = rung, cause
        self._changed_at = self._lowered_at = now
        return cause

    def _note_lowering(self, target: int, cause: str, now: float) -> None:
        """A rung that one cap gave and soon took back waits longer the next time: twice as long as
        whichever has waited longest. As a device warms up the rung that it can hold moves down, and
        each would learn anew what the one above has learned."""
        longest = max(self._dwell.values(), default=0.0)
        for rung in self._ladder.rungs[target + 1 : self.rung + 1]:
            raised_at, given_by = self._raised.pop(rung, (-math.inf, ""))
            if given_by == cause and now - raised_at < self._stability.revert_s:
                longer = 2.0 * max(longest, self._dwell_of(rung))
                self._dwell[rung] = min(longer, self._stability.raise_backoff_max_s)
                self._failed_at = now

    def _raise(self, target: int, reached: str, now: float) -> None:
        lowest = self._ladder.rungs[self.rung + 1]
        self.rung = min(target, self._ladder.above(self.rung))
        self._changed_at = self._allowed_since = now
        self._raised[lowest] = now, self.held_by
        if self.rung == target:
            self._allowed_since, self.held_by = None, reached

    def _wait(self, target: int, now: float) -> float | None:
        """Seconds until the next rung may be climbed; None if ``target`` is not above."""
        if target <= self.rung or self._allowed_since is None:
            return None
        self._forget(now)
        dwell = self._dwell_of(self._ladder.rungs[self.rung + 1])
        return max(0.0, dwell - (now - max(self._changed_at, self._allowed_since)))

    def _forget(self, now: float) -> None:
        """Halve what was learned for every ``forget_s`` without a failure: a raise that lasts just
        long enough to be none does not make all of it untrue."""
        usual = self._stability.raise_dwell_s
        while self._dwell and now - self._failed_at >= self._stability.forget_s:
            self._failed_at += self._stability.forget_s
            halved = ((rung, 0.5 * dwell) for rung, dwell in self._dwell.items())
            self._dwell = {rung: dwell for rung, dwell in halved if dwell > usual}

    def _dwell_of(self, rung: Rung) -> float:
        return self._dwell.get(rung, self._stability.raise_dwell_s)

    def state(self, now: float) -> dict[str, Any]:
        """What a restart must not forget: the operating point and the back-off."""
        return {
            "bits": self.point.bits,
            "fps": self.point.fps,
            "held_by": self.held_by,
            "failed_s": age(self._failed_at, now),
            "dwell": sorted([rung.bits, rung.fps, dwell] for rung, dwell in self._dwell.items()),
            "raised": sorted(
                [rung.bits, rung.fps, age(raised_at, now), given_by]
                for rung, (raised_at, given_by) in self._raised.items()
            ),
        }

    def restore(self, state: Mapping[str, Any], now: float) -> None:
        """Take over what ``state`` tells; what it does not tell stays as it is."""
        self._restored = _point(state.get("bits"), state.get("fps"))
        if self._restored is not None:
            # Whatever held it down then: if only the next step allows more, a name is needed.
            held_by = text(state.get("held_by"))
            self.held_by = held_by if held_by in CAP_NAMES else "policy"
        self._failed_at = since(state.get("failed_s"), now)
        for bits, fps, dwell in rows(state.get("dwell"), 3):
            rung = _point(bits, fps)
            longest = number(dwell, 0.0, self._stability.raise_backoff_max_s)
            if rung is not None and longest is not None:
                self._dwell[rung] = longest
        for bits, fps, raised_s, given_by in rows(state.get("raised"), 4):
            rung = _point(bits, fps)
            if rung is not None and text(given_by) in CAP_NAMES:
                self._raised[rung] = since(raised_s, now), given_by


def _point(bits: object, fps: object) -> Rung | None:
    """The operating point of these numbers, if they are some of one."""
    level, rate = number(bits, 1.0, 64.0), number(fps, 0.0, 1e6)
    return None if level is None or rate is None else Rung(int(level), rate)
