"""Evidence of throttling that nobody announces, and what it is shown to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from governor_samples import LEVELS, a_policy

from edge_app.governor.hidden import Evidence, HiddenThrottle
from edge_app.governor.ladder import build_ladder

POLICY = a_policy()
LADDER = build_ladder(LEVELS, POLICY)
TOP = LADDER.top
CLAIM = {"cpu": 50.0}
SOUND = Evidence(slowdown=1.0, others_idle=True, cool=True, temperatures=CLAIM)
SLOW = replace(SOUND, slowdown=1.21)
SLOW_TEXT = "frames take 1.21 times their profile"
KERNEL_TEXT = "the kernel throttles the CPU"


def make_throttle(*overrides: str) -> HiddenThrottle:
    return HiddenThrottle(a_policy(*overrides), LADDER)


def reads(evidence: Evidence, temperatures: Mapping[str, float]) -> Evidence:
    return replace(evidence, temperatures=temperatures)


def distrusting(now: float = 30.0) -> HiddenThrottle:
    """One that stopped believing the claim of 50 °C at ``now``."""
    throttle = make_throttle()
    throttle.update(SLOW, TOP, now - 30.0)
    throttle.update(SLOW, TOP, now)
    assert throttle.distrusted == ("cpu",)
    return throttle
