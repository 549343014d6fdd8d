"""The load cap: courtesy to other programs, and whether they leave the CPU alone."""

from __future__ import annotations

from edge_app.governor.backdown import Backdown
from edge_app.governor.caps import Cap
from edge_app.governor.ladder import Ladder
from edge_app.governor.tracking import usable
from edge_app.policy.model import Load, Policy
from edge_app.sensors import Sample

LOAD_MAX_AGE_S = 10.0
QUIET_PERCENT = 10.0
"""Of all CPU time, used by others. On a machine of four CPUs a quarter is one CPU, and whoever
takes one from four threads that wait for each other makes all of them slow."""


def others_percent(sample: Sample, now: float) -> float | None:
    """Percent of all CPU time that other programs use; None if that is not known."""
    others = usable(sample.other_load, now, LOAD_MAX_AGE_S)
    return None if others is None else others * 100.0


def contention(sample: Sample, policy: Load, now: float) -> bool:
    """Whether others want the CPU that inference has: tasks wait, and it is others that run.

    Where the kernel does not tell of waiting (no pressure stall information), only a heavy load by
    others counts. The load average would count our own threads.
    """
    others = others_percent(sample, now)
    if not policy.yield_to_others or others is None:
        return False
    pressure = usable(sample.cpu_pressure, now, LOAD_MAX_AGE_S)
    if pressure is None:
        return others > policy.other_load_alone
    return pressure > policy.psi_cpu_some_avg10 and others > policy.other_load


def others_idle(sample: Sample, policy: Load, now: float) -> bool:
    """Whether others are known to leave the CPU alone, so that slow frames are not their doing."""
    others = others_percent(sample, now)
    pressure = usable(sample.cpu_pressure, now, LOAD_MAX_AGE_S)
    waiting = pressure is not None and pressure > policy.psi_cpu_some_avg10
    return others is not None and others <= QUIET_PERCENT and not waiting


class LoadCap:
    """One step down for every ``load.step_s`` of contention, never below the lowest level at full
    rate: frames are not shed for others' sake."""

    def __init__(self, policy: Policy, ladder: Ladder) -> None:
        self._policy = policy.load
        self._backdown = Backdown(ladder, ladder.full, policy.load.step_s)

    def update(self, sample: Sample, current: int, now: float) -> Cap:
        """The cap at ``now``; ``current`` is the rung that runs."""
        wanted = contention(sample, self._policy, now)
        rung = self._backdown.update(wanted, current, now)
        if wanted:
            why = "other programs want the CPU"
        elif self._backdown.steps:
            why = "other programs wanted the CPU lately"
        else:
            why = "other programs leave the CPU alone"
        return Cap("load", rung, why)

    def replace_policy(self, policy: Policy, ladder: Ladder) -> None:
        """Go on under another policy."""
        self._policy = policy.load
        self._backdown.replace(ladder, ladder.full, policy.load.step_s)
