"""The page itself: a template of ours, filled with the panels, and the files that belong to it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

from edge_app.serve.hub import Hub
from edge_app.serve.panels import PANELS, answer_line

CURVES = ("uPlot.iife.min.js", "uPlot.min.css")
"""Brought by npm when the wheel is built; a checkout may be without."""
OURS = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "charts.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
HOW_TO_GET_CURVES = (
    "Curves need uPlot, which this checkout has not: <code>packaging/ui/build.sh</code> brings it (with npm). "
    "The numbers are the same."
)
CACHED = "max-age=0, must-revalidate"


@dataclass(frozen=True)
class Asset:
    """A file that is sent as it is."""

    content: bytes
    content_type: str
    tag: str


def assets() -> dict[str, Asset]:
    """Everything below ``/assets/`` by name, read once: no request ever names a path."""
    package = files("edge_app.serve")
    found = {name: package / "static" / name for name in OURS}
    found |= {name: package / "assets" / name for name in CURVES}
    types = {**OURS, CURVES[0]: "text/javascript", CURVES[1]: "text/css"}
    read: dict[str, Asset] = {}
    for name, file in found.items():
        if file.is_file():
            content = file.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            read[name] = Asset(content, f"{types[name]}; charset=utf-8", tag)
    return read


def has_curves(known: dict[str, Asset]) -> bool:
    """Whether the curves' library is there."""
    return all(name in known for name in CURVES)


def render(hub: Hub, known: dict[str, Asset]) -> bytes:
    """The page with the numbers of this moment."""
    from edge_app.governor.simulation.devices import DEVICES
    from edge_app.policy import text as policy_text

    about, policy = hub.about, hub.about.policy()
    curves = has_curves(known)
    head = (
        '<link rel="stylesheet" href="/assets/uPlot.min.css">'
        '<script src="/assets/uPlot.iife.min.js" defer></script>'
        '<script src="/assets/charts.js" defer></script>'
        if curves
        else ""
    )
    devices = "".join(
        f'<option value="{escape(name)}">{escape(name)}: {escape(device.what)}</option>'
        for name, device in DEVICES.items()
    )
    until = policy.battery.until
    values = {
        "curves_head": head,
        "curves": "yes" if curves else "no",
        "no_curves": "" if curves else f'<p class="note">{HOW_TO_GET_CURVES}</p>',
        "model": escape(about.model),
        "source": escape(about.source),
        "policy": escape(policy.name),
        "policy_text": escape(policy_text.render(policy)),
        "answer": answer_line(hub),
        "devices": devices,
        "control_c": f"{policy.thermal.control_c:g}",
        "target_fps": f"{policy.frame.target_fps:g}",
        "max_bits": str(policy.levels.max_bits),
        "until": f"{until:%H:%M}" if until is not None else "",
        **{name: panel(hub) for name, panel in PANELS.items()},
    }
    template = files("edge_app.serve").joinpath("static", "page.html").read_text(encoding="utf-8")
    return Template(template).substitute(values).encode()


def plain(title: str, content: str) -> bytes:
    """A small page of its own, for browsers without scripts."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width">'
        '<link rel="stylesheet" href="/assets/dashboard.css"><main class="plain"><section>'
        f'<h1>{escape(title)}</h1>{content}<p><a href="/">Back</a></p></section></main></html>'
    ).encode()
