"""Whether the program does its work: what ``/healthz`` answers."""

from __future__ import annotations

from edge_app.serve.hub import Hub

LONGEST_STEP_S = 10.0
"""A pipeline that has not come round for so long hangs in the model or in an output."""
SILENCE_S = 15.0
"""So long without a frame needs a reason. Longer than a stall takes to be seen."""
GOVERNOR_S = 15.0
START_S = 30.0
"""Opening a camera and the first frame may take so long."""


def health(hub: Hub) -> tuple[bool, str]:
    """Whether frames come, or somebody has said why not and goes on trying; and why."""
    now = hub.now()
    if hub.closed:
        return False, "the run has ended"
    if hub.tick_at is None:
        waited = now - hub.started
        return waited < START_S, f"starting since {waited:.0f} s"
    stuck = now - hub.tick_at
    if stuck > LONGEST_STEP_S:
        return False, f"the pipeline has not moved for {stuck:.0f} s"
    # Decisions reach the hub through the pipeline: what is missing is the governor's.
    if hub.decision_at is not None and now - hub.decision_at > GOVERNOR_S:
        return False, f"the governor has been silent for {now - hub.decision_at:.0f} s"
    decision, status = hub.decision_newest, hub.status
    if decision is not None and decision.paused:
        return True, f"paused by the governor: {decision.why}"
    if status is not None and status.state != "up":
        return True, f"source {status.state}: {status.text}"
    since = hub.started if hub.frame_at is None else hub.frame_at
    silent = now - since
    allowed = START_S if hub.frame_at is None else SILENCE_S
    # A frame an hour is no fault where somebody asked for it.
    rates = (hub.about.target_fps, None if decision is None else decision.fps)
    allowed += sum(2.0 / rate for rate in rates if rate)
    if silent > allowed:
        return False, f"no frame for {silent:.0f} s, and the source does not say why"
    return True, "starting" if hub.frame_at is None else "frames come"
