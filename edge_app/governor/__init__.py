"""The governor: which level runs, decided from heat, battery, deadlines and load.

Caps are pure functions; the controller holds the state; the loop does the I/O. Nothing here
knows of cameras, models or files other than policies.
"""

from edge_app.governor.controller import Decision, Governor
from edge_app.governor.loop import GovernorLoop
from edge_app.governor.policy import Policy
from edge_app.governor.policy_file import PolicyError, load_policy, presets

__all__ = [
    "Decision",
    "Governor",
    "GovernorLoop",
    "Policy",
    "PolicyError",
    "load_policy",
    "presets",
]
