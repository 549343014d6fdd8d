"""Caps and arbiters for tests of the arbiter."""

from __future__ import annotations

import pytest
from governor_samples import LEVELS, a_policy

from edge_app.governor.arbiter import Arbiter
from edge_app.governor.caps import Cap
from edge_app.governor.ladder import build_ladder

POLICY = a_policy()
LADDER = build_ladder(LEVELS, POLICY)
TOP = LADDER.top
FREE = Cap("policy", TOP, "")


def heat(rung: int, urgent: bool = False) -> Cap:
    return Cap("thermal", rung, "hot", urgent)


def load(rung: int) -> Cap:
    return Cap("load", rung, "busy")


def blind(rung: int) -> Cap:
    return Cap("failsafe", rung, "blind", urgent=True)


def make_arbiter(rung: int | None = TOP, limited: bool = False) -> Arbiter:
    """One that has made its first move at 0, to ``rung``."""
    arbiter = Arbiter(LADDER, POLICY.stability, limited)
    if rung is not None:
        arbiter.move([heat(rung)], 0.0)
    return arbiter


def raise_once(arbiter: Arbiter, cap: Cap, start: float, dwell: float = 20.0) -> float:
    """Allow a raise from ``start`` on, see that it takes exactly ``dwell``, return when."""
    before = arbiter.rung
    assert arbiter.move([cap], start).wait_s == dwell
    assert arbiter.move([cap], start + dwell - 0.001).wait_s == pytest.approx(0.001)
    assert arbiter.rung == before
    arbiter.move([cap], start + dwell)
    assert arbiter.rung == before + 1
    return start + dwell
