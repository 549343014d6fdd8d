"""Confidence escalation: which frames are worth a second run, and which of those are paid for.

A frame starts at a low level. Where the network hesitates between two classes it is run again at
the ceiling, from scratch: the branches of a low level are no part of a higher one's sum, because
activations are quantised to other widths. So the second run costs all that its level costs, and is
paid three times: from a token bucket (so many a second), from the joules that the battery's budget
has to spare, and from what is left of the frame's deadline.
"""

from __future__ import annotations

from edge_app.governor.caps import DEADLINE_QUANTILE
from edge_app.governor.energy import Profile
from edge_app.policy.model import Policy


class Bucket:
    """Fills at a rate, up to what it holds; what is not in it cannot be taken."""

    def __init__(self, content: float, holds: float) -> None:
        self.content = content
        self.holds = holds

    def fill(self, amount: float) -> None:
        self.content = min(self.holds, self.content + amount)


class Escalation:
    """Decides on second runs. Everything here takes constant time and memory and no lock: it is
    called for every frame. ``granted``: how many there have been.

    ``spare_w`` is set by the slow loop: watts that second runs may take on average, in the
    profile's measure; None where nothing limits them.
    """

    def __init__(self, policy: Policy, profile: Profile, now: float) -> None:
        self.granted = 0
        self.spare_w: float | None = None
        self._time = now
        self._tokens = Bucket(0.0, 0.0)
        self._joules = Bucket(0.0, 0.0)
        self.replace(policy, profile)
        self._tokens.fill(self._tokens.holds)

    def replace(self, policy: Policy, profile: Profile) -> None:
        """Another policy from now on. What the buckets hold stays, as far as it fits."""
        self._confidence = policy.confidence
        self._deadline_s = policy.frame.deadline_ms * 1e-3
        self._profile = profile
        dearest = max((cost.joules for cost in profile.levels.values()), default=0.0)
        self._tokens.holds = float(policy.confidence.burst)
        self._joules.holds = policy.confidence.burst * dearest
        self._tokens.fill(0.0)
        self._joules.fill(0.0)

    def decide(
        self,
        bits: int,
        ceiling: int,
        margin: float,
        now: float,
        slowdown: float = 1.0,
        deviation: float = 0.0,
    ) -> int | None:
        """The bits to run this frame at again, paid; None to keep its result.

        ``bits`` is what it ran at and ``ceiling`` the highest level that is allowed now. ``margin``:
        difference of the two highest probabilities, 0..1. ``slowdown`` and ``deviation``: how many
        times its profile a run takes, and how sure that is.
        """
        self._refill(now)
        if bits >= ceiling or not margin < self._confidence.escalate_below:
            return None
        if self._tokens.content < 1.0 or not self._in_time(bits, ceiling, slowdown, deviation):
            return None
        if self.spare_w is not None:
            cost = self._profile.cost(ceiling)
            joules = 0.0 if cost is None else cost.joules
            if self._joules.content < joules:
                return None
            self._joules.content -= joules
        self._tokens.content -= 1.0
        self.granted += 1
        return ceiling

    def _refill(self, now: float) -> None:
        step_s = max(0.0, now - self._time)
        self._time = max(self._time, now)
        self._tokens.fill(step_s * self._confidence.max_per_s)
        if self.spare_w is not None:
            self._joules.fill(step_s * self.spare_w)

    def _in_time(self, bits: int, ceiling: int, slowdown: float, deviation: float) -> bool:
        """Whether both runs together end before the deadline, for 95 % of the frames."""
        if self._deadline_s <= 0.0:
            return True
        first, second = self._profile.cost(bits), self._profile.cost(ceiling)
        if first is None or second is None:
            return False
        factor = slowdown + DEADLINE_QUANTILE * deviation
        return (first.seconds + second.seconds) * factor <= self._deadline_s
