"""What is known of frames: what they cost, how slow they are, which are worth a second run.

The frame path tells and asks here, the slow loop looks once a second. Plain attributes are all
that the two threads share; nothing waits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from edge_app.governor.demand import Escalation
from edge_app.governor.energy import Profile, Usage, Use
from edge_app.governor.slowdown import Slowdown
from edge_app.policy.model import Policy

FRAMES_MAX_AGE_S = 10.0
"""Without a frame for so long, how slow frames are is not known."""

Given = Profile | Mapping[int, float]
"""A profile, or seconds by level, for which the policy's stated model of energy holds."""


def _estimated(given: Given) -> frozenset[int]:
    return given.estimated if isinstance(given, Profile) else frozenset()


class Frames:
    """Frames of one model on this machine.

    ``profile``: what its levels cost, ``seconds`` what they take, by bits. ``slowdown``: how many
    times that they take now.
    """

    def __init__(self, policy: Policy, given: Given, now: float) -> None:
        self._given = given
        self._again = False
        self._seen_at = -math.inf
        self._price(policy)
        self._escalation = Escalation(policy, self.profile, now)
        self.slowdown = Slowdown()

    # From the frame path -----------------------------------------------------------------------

    def observe(self, bits: int, seconds: float) -> None:
        """One inference at ``bits`` took ``seconds``."""
        again, self._again = self._again, False
        self._usage.add(bits, again)
        profiled = self.seconds.get(bits)
        if profiled is not None and bits not in self.profile.estimated:
            self.slowdown.observe(seconds / profiled)

    def escalate(self, bits: int, ceiling: int, margin: float, now: float) -> int | None:
        """Bits at which to run a frame again, paid; None to keep its result."""
        slow = self.slowdown
        higher = self._escalation.decide(bits, ceiling, margin, now, slow.mean, slow.deviation)
        self._again = higher is not None
        return higher

    # From the slow loop ------------------------------------------------------------------------

    def look(self, now: float) -> Use | None:
        """What ran since the last look; None if that cannot be said."""
        use = self._usage.since_last(now)
        if use is not None and use.fps > 0:
            self._seen_at = now
        return use

    def recent_slowdown(self, now: float) -> float | None:
        """How many times its profile a frame takes; None if none was seen lately."""
        return self.slowdown.mean if now - self._seen_at <= FRAMES_MAX_AGE_S else None

    def spare(self, watts: float | None) -> None:
        """Second runs may take so much on average; None: nothing limits them."""
        self._escalation.spare_w = watts

    def replace_policy(self, policy: Policy) -> None:
        """Another policy applies; frames are as slow as before."""
        self._price(policy)
        self._escalation.replace(policy, self.profile)

    def replace_profile(self, policy: Policy, given: Given) -> None:
        """Another model runs, of which it is not known how slow it is; or the same one, of which an
        estimate has become a measurement."""
        if not self.profile.estimated > _estimated(given):
            self.slowdown = Slowdown()
        self._given = given
        self.replace_policy(policy)

    def _price(self, policy: Policy) -> None:
        given, energy = self._given, policy.energy
        if not isinstance(given, Profile):
            given = Profile.from_seconds(given, energy.idle_w, energy.active_w)
        self.profile = given
        self.seconds = {bits: taken for bits, taken in given.seconds.items() if taken > 0}
        self._usage = Usage(given)
