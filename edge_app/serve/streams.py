"""Answers that go on: what changes on the page, and the live picture.

A stream makes its next part when its client has taken the one before, out of the newest there is:
nothing piles up for a client that is slow.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, runtime_checkable

from edge_app.serve import series
from edge_app.serve.http import head
from edge_app.serve.hub import Hub
from edge_app.serve.panels import PANELS
from edge_app.serve.pictures import Pictures
from edge_app.serve.state import marks

BOUNDARY = "edge-app-picture"
LOOK_EVERY_S = 0.05


@runtime_checkable
class Stream(Protocol):
    """An answer that goes on: ``next`` waits for the next part, made of the newest there is."""

    def head(self) -> bytes: ...
    async def next(self) -> bytes: ...


class Panels:
    """The panels as JSON strings, made at most once a pulse for everybody, with versions."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._at = -1.0
        self._html: dict[str, str] = {}
        self.newest: dict[str, tuple[int, str]] = {}

    def refresh(self) -> None:
        """Make them again if they are older than a moment."""
        now = self._hub.now()
        if now - self._at < 0.25:
            return
        self._at = now
        for name, panel in PANELS.items():
            html = panel(self._hub)
            if self._html.get(name) != html:
                self._html[name] = html
                version = self.newest[name][0] + 1 if name in self.newest else 1
                self.newest[name] = version, f"{json.dumps(name)}:{json.dumps(html)}"


class EventStream:
    """Server-sent events: what has changed on the page since the last event."""

    def __init__(self, hub: Hub, panels: Panels, pulsed: Callable[[], Awaitable[None]]) -> None:
        self._hub = hub
        self._panels = panels
        self._pulsed = pulsed
        self._sent: dict[str, int] = {}

    def head(self) -> bytes:
        return head(200, {"Content-Type": "text/event-stream", "Connection": "close"}) + (
            b"retry: 2000\n\n"
        )

    async def next(self) -> bytes:
        # The first part at once: it shows what has happened since the page was made.
        if self._sent:
            await self._pulsed()
        hub = self._hub
        self._panels.refresh()
        changed = []
        for name, (version, text) in self._panels.newest.items():
            if self._sent.get(name) != version:
                self._sent[name] = version
                changed.append(text)
        newest = hub.series.newest
        now = hub.now()
        rest: dict[str, Any] = {
            "point": None if newest is None else series.point_json(newest, now, hub.wall()),
            "marks": marks(hub),
        }
        return f'data: {{"panels":{{{",".join(changed)}}},{json.dumps(rest)[1:]}\n\n'.encode()


class PictureStream:
    """Motion JPEG, for browsers without scripts and for programs that show cameras."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._sent = 0

    def head(self) -> bytes:
        kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        return head(200, {"Content-Type": kind, "Connection": "close"})

    async def next(self) -> bytes:
        picture = await self._pictures.newest()
        while picture is None or picture.number == self._sent:
            await asyncio.sleep(LOOK_EVERY_S)
            picture = await self._pictures.newest()
        self._sent = picture.number
        lines = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\n"
        lines += f"Content-Length: {len(picture.jpeg)}\r\n\r\n"
        return lines.encode() + picture.jpeg + b"\r\n"
