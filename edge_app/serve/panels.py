"""The page's numbers as pieces of HTML, made here so that they are there without scripts too.

Each panel is a function of the hub. Whatever comes from outside (labels, file names, reasons) is
escaped. No inline styles: the policy that the server sends forbids them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from html import escape
from itertools import groupby
from typing import Any

from edge_app.serve.health import health
from edge_app.serve.hub import Hub
from edge_app.serve.limits import heat_limits
from edge_app.serve.sensors_view import rows
from edge_app.serve.series import merged
from edge_app.serve.text import clock, duration, number, until

LOSSES = {
    "capture": "could not be read",
    "stale": "a newer one came first",
    "deadline": "too old when its turn came",
    "shed": "left out to save energy",
    "output": "result not written in time",
}
HISTORY_ROWS = 10
EVENTS = 30


def table(head: Sequence[str], body: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of cells that are HTML already."""
    columns = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if index == 0 else f"<td>{cell}</td>"
            for index, cell in enumerate(row)
        )
        + "</tr>"
        for row in body
    )
    header = f"<thead><tr>{columns}</tr></thead>" if head else ""
    return f'<table class="{kind}">{header}<tbody>{lines}</tbody></table>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names with their values, which are HTML already."""
    return "<dl>" + "".join(f"<div><dt>{n}</dt><dd>{v}</dd></div>" for n, v in pairs if v) + "</dl>"


def chip(cause: str) -> str:
    """A cause in its colour, and in words."""
    return f'<span class="cause" data-cause="{escape(cause)}">{escape(cause)}</span>'


def bar(share: float, kind: str) -> str:
    """A bar of 0..1; the number stands beside it."""
    width = round(100 * min(1.0, max(0.0, share)), 1)
    return (
        f'<svg class="bar {kind}" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rail" width="100" height="6"/><rect width="{width}" height="6"/></svg>'
    )


def announcement(hub: Hub) -> str:
    """One short line for the title and for those who listen: changes only with the level."""
    level, cause = level_of(hub)
    if level is None:
        return "starting"
    return f"{level} bits" if cause == "none" else f"{level} bits, held by {escape(cause)}"


def level_of(hub: Hub) -> tuple[int | None, str]:
    """Bits that run, and the cause."""
    record, decision = hub.record, hub.decision_newest
    if hub.fixed and record is not None:
        return record.bits, "fixed"
    if decision is not None:
        return decision.bits, decision.cause
    return None, "none"


def health_badge(hub: Hub) -> str:
    good, why = health(hub)
    # A camera that is gone, or too much heat, is no fault of the program and yet no good news.
    waits = hub.status is not None and hub.status.state != "up"
    waits = waits or (hub.decision_newest is not None and hub.decision_newest.paused)
    return f'<span class="badge {"good" if good and not waits else "bad"}">{escape(why)}</span>'


def now_panel(hub: Hub) -> str:
    decision, record, counts = hub.decision_newest, hub.record, hub.counts
    bits, cause = level_of(hub)
    if bits is None:
        return "<p>No decision yet.</p>"
    held = "nothing holds it down" if cause == "none" else f"held by {chip(cause)}"
    if cause == "fixed":
        held = f"by {chip('fixed')} --fixed-bits"
    branches = len(hub.about.branches.get(bits, ()))
    most = max((len(members) for members in hub.about.branches.values()), default=branches)
    marks = "".join(
        f'<rect class="{"on" if index < branches else "off"}" x="{index * 14}" width="11" '
        'height="20" rx="2"/>'
        for index in range(most)
    )
    picture = (
        f'<svg class="branches" data-cause="{escape(cause)}" viewBox="0 0 {most * 14} 20" '
        f'role="img" aria-label="{branches} of {most} branches">{marks}</svg>'
    )
    why = escape(decision.why) if decision else ""
    pairs = [("Frames a second", number(hub.fps, ".1f"))]
    if decision is not None:
        if decision.fps:
            pairs.append(("Allowed", number(decision.fps, "g", "fps")))
        if decision.next_raise_s is not None:
            pairs.append(("Next raise in", number(decision.next_raise_s, ".0f", "s")))
        pairs.append(("Slow-down", number(decision.slowdown, ".2f", "×")))
    if counts.labels_known:
        right = counts.labels_right / counts.labels_known
        pairs.append(("Right answers", number(right, ".1%")))
    pairs.append(("Frames", f"{counts.frames:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")))
    if record is not None and counts.escalations:
        pairs.append(("Run twice", number(counts.escalations / counts.frames, ".1%")))
    pairs.append(("Running for", duration(hub.now() - hub.started)))
    return (
        f'<p class="level"><strong>{bits}</strong> bits {picture}</p><p class="held">{held}</p>'
        f'<p class="why">{why}</p>{facts(pairs)}'
    )


def answer_line(hub: Hub) -> str:
    """What was found in the newest frame, for those whose browser runs no scripts."""
    record = hub.record
    if record is None:
        return "No frame yet."
    sure = number(record.probability, ".0%")
    return f"When the page was made: <b>{escape(record.label)}</b> ({sure}) at {record.bits} bits."


def caps_panel(hub: Hub) -> str:
    decision = hub.decision_newest
    if decision is None:
        return "<p>No decision yet.</p>"
    most = max(hub.about.branches, default=8)
    body = [
        (
            chip(name) if name == decision.cause else escape(name),
            f"{bits}",
            bar(bits / most, "cap"),
            escape(decision.reasons.get(name, "")),
        )
        for name, bits in decision.caps.items()
    ]
    return table(("Cap", "Bits", "", "Why"), body, "caps")


def heat_panel(hub: Hub) -> str:
    decision, limits = hub.decision_newest, heat_limits(hub)
    pairs = []
    if decision is None or decision.temperature_c is None:
        pairs.append(("Temperature", "none that can be believed"))
    else:
        ahead = hub.about.policy().thermal.forecast_s
        pairs.append(("Now", number(decision.temperature_c, ".1f", "°C")))
        pairs.append((f"In {ahead:g} s", number(decision.forecast_c, ".1f", "°C")))
    pairs += [
        ("Counts from", number(limits.on_c, ".0f", "°C")),
        ("Kept to", number(limits.control_c, ".0f", "°C")),
        ("Critical", number(limits.critical_c, ".0f", "°C")),
    ]
    if decision is not None and decision.distrusted:
        pairs.append(("Not believed", escape(", ".join(decision.distrusted))))
    return facts(pairs)


def battery_panel(hub: Hub) -> str:
    decision, sample = hub.decision_newest, hub.sample
    if decision is None or decision.battery_charge is None:
        return "<p>No battery.</p>"
    wall = sample.wall if sample else None
    pairs = [("Charge", number(decision.battery_charge, ".0%"))]
    if sample is not None and sample.battery.on_ac is not None:
        pairs.append(("Charger", "connected" if sample.battery.on_ac else "not connected"))
    end_s, until_s = decision.battery_end_s, decision.until_s
    if end_s is not None:
        pairs.append(("Lasts", until(wall, end_s)))
    if until_s is not None:
        pairs.append(("Meant to last", until(wall, until_s)))
        if end_s is not None:
            spare = end_s - until_s
            what = "to spare" if spare >= 0 else "too short"
            pairs.append(("That is", f"{duration(abs(spare))} {what}"))
    return facts(pairs)


def latency_panel(hub: Hub) -> str:
    infer = hub.infer_s.percentiles(50, 95, 99)
    age = hub.age_s.percentiles(50, 95, 99)
    names = ("median", "95 %", "99 %")

    def row(title: str, values: Sequence[float | None]) -> list[str]:
        return [title, *(number(None if v is None else v * 1e3, ".2f") for v in values)]

    deadline = hub.deadline_s
    stages = [
        row(name, [histogram.sum / max(1, hub.counts.frames)])[1]
        for name, histogram in hub.stages.items()
    ]
    missed = hub.counts.deadline_missed
    share = missed / hub.counts.frames if hub.counts.frames else 0.0
    pairs = [
        ("Deadline", number(deadline * 1e3, "g", "ms") if deadline else "none"),
        ("Missed", f"{missed} ({number(share, '.2%')})" if deadline else ""),
        ("Mean times", f"capture {stages[0]}, prepare {stages[1]}, infer {stages[2]} ms"),
    ]
    body = [row("inference, ms", infer), row("age of results, ms", age)]
    return table(("last frames", *names), body, "numbers") + facts(pairs)


def losses_panel(hub: Hub) -> str:
    counts = hub.counts
    total = counts.frames + sum(n for name, n in counts.losses.items() if name != "output")
    rows_ = [("classified", "", counts.frames, "good")]
    rows_ += [(name, LOSSES[name], counts.losses.get(name, 0), name) for name in LOSSES]
    body = [
        (
            f"{name}<small>{text}</small>" if text else name,
            f"{count}",
            number(count / total if total else None, ".1%"),
            bar(count / total if total else 0.0, kind),
        )
        for name, text, count, kind in rows_
    ]
    status = hub.status
    source = escape(hub.about.source)
    if status is not None:
        state = escape(status.text or status.state)
        source += f": {state}"
        if status.reconnects:
            source += f", opened again {status.reconnects} times"
    return table(("Frames", "", "Share", ""), body, "losses") + f"<p>{source}</p>"


def sensors_panel(hub: Hub) -> str:
    found = rows(hub.sample)
    body = [
        (
            escape(row.what),
            escape(row.text),
            f'<span class="quality {row.reading.quality.value}">{row.reading.quality.value}</span>',
        )
        for row in found
        if not row.absent
    ]
    missing = [row.what for row in found if row.absent]
    without = f"<p>Not on this device: {escape(', '.join(missing))}.</p>" if missing else ""
    return table(("Sensor", "Value", "Quality"), body, "sensors") + without


def events_panel(hub: Hub, state: dict[str, Any] | None = None) -> str:
    history = (state or hub.about.journal())["history"][-EVENTS:]
    if not history:
        return "<p>Nothing has happened yet.</p>"
    items = "".join(
        f'<li><time datetime="{escape(entry["t"])}">{_local(entry["t"])}</time> '
        f"<b>{escape(entry['event'])}</b> {escape(entry['text'])}</li>"
        for entry in reversed(history)
    )
    return f'<ol class="events">{items}</ol>'


def _local(text: str) -> str:
    """The time of day of an RFC 3339 time, where this machine is."""
    return clock(datetime.fromisoformat(text).timestamp())


def history_panel(hub: Hub) -> str:
    points = hub.series.points("minutes")
    step = max(5, -(-len(points) // (HISTORY_ROWS * 5)) * 5)
    now, wall = hub.now(), hub.wall()
    body = []
    for _, group in groupby(points, key=lambda point: point.number // step):
        point = merged(list(group))
        body.append(
            (
                clock(wall - (now - point.time)),
                number(point.bits, "d"),
                chip(point.cause),
                number(point.temperature_c, ".1f"),
                number(point.forecast_c, ".1f"),
                number(point.battery, ".0%"),
                number(point.p50_ms, ".2f"),
                number(point.p95_ms, ".2f"),
                number(point.p99_ms, ".2f"),
                number(point.fps, ".1f"),
            )
        )
    head = ("Time", "Bits", "Cause", "°C", "ahead", "Charge", "p50&nbsp;ms", "p95", "p99", "fps")
    return table(head, reversed(body), "numbers")


PANELS: dict[str, Callable[[Hub], str]] = {
    "announce": announcement,
    "health": health_badge,
    "now": now_panel,
    "caps": caps_panel,
    "heat": heat_panel,
    "battery": battery_panel,
    "latency": latency_panel,
    "losses": losses_panel,
    "sensors": sensors_panel,
    "events": events_panel,
    "history": history_panel,
}
