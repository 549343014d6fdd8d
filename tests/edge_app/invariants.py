"""What the tests of the governor's invariants share: a policy, its ladder, and generated readings."""

from __future__ import annotations

import json
import math

from fake_root import Errno
from faults import FAULTS
from governor_samples import LEVELS
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from rig import Rig, Watch, policy_of

from edge_app.governor.ladder import build_ladder
from edge_app.sensors import Quality, Reading

POLICY = policy_of()
LADDER = build_ladder(LEVELS, POLICY)
TOP, FULL = LADDER.top, LADDER.full
RAISE_S = POLICY.stability.raise_dwell_s
BACKOFF_S = POLICY.stability.raise_backoff_max_s
FORGET_S = POLICY.stability.forget_s

examples = settings.default.max_examples if settings.default else 100
many = settings(
    max_examples=examples // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
few = settings(many, max_examples=max(5, examples // 10))
"""For what takes a tenth of a second or more an example; more of them in the soak profile."""
fewer = settings(few, max_examples=max(3, examples // 30))

celsius = st.floats(-30.0, 124.0)
fractions = st.floats(0.0, 1.0)
seconds = st.integers(1, 60)
fault_names = st.sampled_from(sorted(FAULTS))
wild_numbers = st.one_of(
    st.none(),
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -273.15, -32768.0, 2.0**31, 61000.0]),
    celsius,
)
wild_texts = st.one_of(
    st.none(),
    st.sampled_from(["ENODATA", "EAGAIN", "EIO", "EINVAL", "EACCES", "ENODEV"]).map(Errno),
    st.sampled_from(["", "N/A", "nan", "inf", "-273150", "9" * 400, "1_0", "0x10", "61000"]),
    st.integers(-(2**63), 2**63).map(str),
    st.integers(-40, 130).map(lambda degrees: str(degrees * 1000)),
    st.text(max_size=20),
)


def of_qualities(values: st.SearchStrategy[float | None], name: str) -> st.SearchStrategy[Reading]:
    times = st.one_of(st.floats(), st.floats(0.0, 1e4))
    return st.builds(Reading, values, times, st.sampled_from(Quality), st.just(name))


def restarted(rig: Rig) -> None:
    """The process ends and starts again: only what ``state`` gave is left."""
    saved = json.loads(json.dumps(rig.governor.state(), allow_nan=False))
    rig.sensors = rig.machine.sensors()
    rig.governor = rig.new_governor()
    rig.governor.restore(saved)
    rig.watch = Watch(rig.governor)
