"""What another policy would do: the simulator, asked from the page.

It runs in a process of its own, at the lowest priority, one at a time and not for long: trying
something out must not slow what runs. Nothing is changed by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from edge_app.errors import AppError
from edge_app.serve.http import BadRequest
from edge_app.serve.hub import Hub
from edge_app.serve.panels import table
from edge_app.serve.text import number

MOST_HOURS = 6.0
LIMIT_S = 120.0
NICE = 19
KEYS = {
    "control_c": "thermal.control_c",
    "target_fps": "frame.target_fps",
    "max_bits": "levels.max_bits",
    "until": "battery.until",
}
"""Fields of the form, and the keys of the policy that they change."""
NOW, THEN = "this policy", "what if"
COLUMNS = (
    ("Peak °C", "peak_c", ".1f"),
    ("Min throttled", "minutes_throttled", ".1f"),
    ("Changes/h", "changes_per_hour", ".1f"),
    ("Mean bits", "mean_bits", ".2f"),
    ("Mean fps", "mean_fps", ".1f"),
    ("Accuracy", "accuracy", ".2%"),
    ("Wh", "energy_wh", ".2f"),
    ("Charge", "charge", ".0%"),
    ("Died after h", "died_after_hours", ".2f"),
)


class WhatIf:
    """Runs one simulation at a time. Belongs to the server's event loop."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._running: asyncio.subprocess.Process | None = None
        self._busy = False

    async def ask(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The report for a filled-in form: ``html``, and ``runs`` with their curves. BadRequest if
        the form is wrong, another simulation runs, or it takes too long."""
        job = request_of(self._hub, query)
        if self._busy:
            raise BadRequest(429, "another simulation runs; try again when it is done")
        self._busy = True
        try:
            return await self._run(job)
        finally:
            self._busy, self._running = False, None

    async def _run(self, job: dict[str, Any]) -> dict[str, Any]:
        process = self._running = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                output, _ = await process.communicate(json.dumps(job).encode())
        except TimeoutError:
            raise BadRequest(
                504, f"not done after {LIMIT_S:g} s on this device; ask for fewer hours"
            ) from None
        finally:
            self.close()
        report: dict[str, Any] = json.loads(output) if output else {"error": "it was ended"}
        if "error" in report:
            raise BadRequest(400, report["error"])
        return {**report, "html": html(report)}

    def close(self) -> None:
        """End what runs."""
        if self._running is not None and self._running.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._running.kill()


def request_of(hub: Hub, query: Mapping[str, str]) -> dict[str, Any]:
    """What the process is told. BadRequest for what it is not worth starting for."""
    from edge_app.governor.simulation.devices import DEVICES
    from edge_app.policy.text import render

    device = query.get("device", "pi5-passive")
    if device not in DEVICES:
        raise BadRequest(400, f"no simulated device {device[:40]}; one of: {', '.join(DEVICES)}")
    try:
        hours = float(query.get("hours", "2"))
    except ValueError:
        hours = 0.0
    if not 0.01 <= hours <= MOST_HOURS:
        raise BadRequest(400, f"hours: must be from 0.01 to {MOST_HOURS:g}")
    ambient = query.get("ambient") or None
    if ambient is not None and len(ambient) > 20:
        raise BadRequest(400, "ambient: must be °C or FROM..TO")
    settings = []
    for name, key in KEYS.items():
        value = query.get(name, "").strip()
        if not value:
            continue
        # Numbers and times of day; nothing else is a value of these keys.
        if len(value) > 12 or not set(value) <= set("0123456789.:"):
            raise BadRequest(400, f"{name}: must be a number or a time of day")
        if name == "until" and len(value) == 5:
            value += ":00"
        settings.append(f"{key}={value}")
    return {
        "device": device,
        "hours": hours,
        "ambient": ambient,
        "policy": render(hub.about.policy()),
        "settings": settings,
    }


def html(report: Mapping[str, Any]) -> str:
    """The comparison as a table."""
    summaries = [run["summary"] for run in report["runs"]]
    shown = [entry for entry in COLUMNS if any(row[entry[1]] is not None for row in summaries)]
    body = [
        (escape(row["governor"]), *(number(row[key], form) for _, key, form in shown))
        for row in summaries
    ]
    head = ("Policy", *(title for title, _, _ in shown))
    note = report["note"]
    note = f"{report['title']}. {note[:1].upper()}{note[1:]}."
    return table(head, body, "numbers") + f"<p>{escape(note)}</p>"


def simulate(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The job's runs: the policy as it is, and with the job's settings. AppError if it is wrong."""
    from edge_app.governor import load_policy
    from edge_app.governor.simulation.compare import Request, run_all

    file = folder / "policy.toml"
    file.write_text(job["policy"], encoding="utf-8")
    policies = {NOW: load_policy(file)}
    if job["settings"]:
        policies[THEN] = load_policy(file, overrides=job["settings"])
    request = Request(
        device=job["device"], hours=job["hours"], ambient=job["ambient"], baselines=False
    )
    title, note, runs, _ = run_all(request, policies)
    return {
        "title": title,
        "note": note,
        "runs": [
            {
                "summary": run.summary(),
                "hours": run.curves.hours,
                "chip_c": run.curves.chip_c,
                "bits": run.curves.bits,
                "charge": run.curves.charge,
            }
            for run in runs
        ],
    }


def main() -> None:
    """Read a job from stdin, print its report or ``{"error": ...}``."""
    import tempfile

    os.nice(NICE)
    job = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = simulate(job, Path(folder))
        except AppError as error:
            report = {"error": error.message.replace(f"{folder}/", "")}
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
