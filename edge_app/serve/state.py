"""What is known at this moment, for programs."""

from __future__ import annotations

from typing import Any

from edge_app.serve.health import health
from edge_app.serve.hub import Hub
from edge_app.serve.limits import heat_limits
from edge_app.serve.panels import LOSSES
from edge_app.serve.sensors_view import rows


def marks(hub: Hub) -> dict[str, Any]:
    """Lines across the curves, and what lies ahead. Times in seconds of the curves' clock."""
    limits, decision = heat_limits(hub), hub.decision_newest
    policy, speed = hub.about.policy(), hub.about.speed
    end_s = decision.battery_end_s if decision else None
    until_s = decision.until_s if decision else None
    return {
        "on_c": limits.on_c,
        "control_c": limits.control_c,
        "critical_c": limits.critical_c,
        "deadline_ms": hub.deadline_s * 1e3,
        "reserve": policy.battery.reserve / 100.0,
        "end_s": None if end_s is None else round(end_s / speed, 1),
        "until_s": None if until_s is None else round(until_s / speed, 1),
        "levels": sorted(hub.about.branches),
    }


def state_of(hub: Hub) -> dict[str, Any]:
    """What ``/state.json`` shows: that of `edge-app why`, and what is known of frames."""
    good, why = health(hub)
    counts, record, status = hub.counts, hub.record, hub.status
    infer = hub.infer_s.percentiles(50, 95, 99)
    age = hub.age_s.percentiles(50, 95, 99)
    return {
        **hub.about.journal(),
        "health": {"ok": good, "why": why},
        "uptime_s": round(hub.now() - hub.started, 1),
        "frames": {
            "classified": counts.frames,
            "lost": {reason: counts.losses.get(reason, 0) for reason in LOSSES},
            "per_second": round(hub.fps, 2),
            "deadline_missed": counts.deadline_missed,
            "escalated": counts.escalations,
            "right": counts.labels_right if counts.labels_known else None,
            "of_known": counts.labels_known,
        },
        "latency_ms": {
            "deadline": hub.deadline_s * 1e3,
            "infer": dict(zip(("p50", "p95", "p99"), map(_ms, infer), strict=True)),
            "age": dict(zip(("p50", "p95", "p99"), map(_ms, age), strict=True)),
        },
        "newest": None if record is None else record.to_json(),
        "source_status": None
        if status is None
        else {"state": status.state, "reconnects": status.reconnects, "text": status.text},
        "sensors": [
            {
                "name": row.key,
                "value": row.reading.value,
                "quality": row.reading.quality.value,
            }
            for row in rows(hub.sample)
        ],
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 4)
