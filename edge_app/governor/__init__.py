"""The governor: which level runs, decided from heat, battery, deadlines and load.

Caps are pure functions; the controller holds the state; the loop does the I/O. Nothing here
knows of cameras, models or files other than policies.
"""

from edge_app.governor.controller import Governor
from edge_app.governor.decision import Decision, Event
from edge_app.governor.loop import GovernorLoop
from edge_app.policy.files import presets
from edge_app.policy.layers import Resolved, load_policy, resolve
from edge_app.policy.model import Policy
from edge_app.policy.problems import PolicyError

__all__ = [
    "Decision",
    "Event",
    "Governor",
    "GovernorLoop",
    "Policy",
    "PolicyError",
    "Resolved",
    "load_policy",
    "presets",
    "resolve",
]
