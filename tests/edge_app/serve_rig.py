"""A page with a hub behind it, and a client that says exactly what it wants over its socket."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from test_sinks import decision, record

from edge_app.governor import load_policy
from edge_app.journal import Journal
from edge_app.serve import About, Hub, Page
from edge_app.sources import Frame, SourceStatus

TOKEN = "token-of-the-tests"
WAIT_S = 20.0


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Rig:
    """A hub with what a run would give it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.reloads = 0
        self.losses = {"stale": 0}
        self.status = SourceStatus()
        self.policy = load_policy(None)
        self.journal = Journal({"model": "digits", "source": "test:digits", "policy": "balanced"})
        self.hub = Hub(
            About(
                model="digits",
                model_path="/nowhere",
                source="test:digits",
                branches={2: (1,), 4: (2, 3), 6: (2, 3, 4), 8: (1, 2, 3, 4)},
                journal=self.journal.to_json,
                policy=lambda: self.policy,
                losses=lambda: self.losses,
                status=lambda: self.status,
                reload=self._reload,
            ),
            now,
        )

    def _reload(self) -> None:
        self.reloads += 1

    def frame(self, seq: int = 0, value: int = 0, **changes: Any) -> None:
        image = np.full((30, 40, 3), value, np.uint8)
        self.hub.frame(record(seq=seq, **changes), Frame(image, "rgb", 0.0, 0.0))

    def decide(self, **changes: Any) -> None:
        self.hub.decision(decision(**changes))


@dataclasses.dataclass
class Got:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def connect(page: Page) -> socket.socket:
    return socket.create_connection(("127.0.0.1", page.port), WAIT_S)


def received(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def raw(page: Page, sent: bytes) -> Got:
    """The answer to exactly these bytes."""
    with connect(page) as connection:
        connection.sendall(sent)
        return answer(received(connection))


def answer(data: bytes) -> Got:
    top, _, body = data.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines)}
    return Got(int(first.split()[1]), headers, body)


def get(page: Page, target: str, method: str = "GET", **headers: str) -> Got:
    given = {"Host": f"127.0.0.1:{page.port}", "Connection": "close"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {target} HTTP/1.1", *(f"{n}: {v}" for n, v in given.items())]
    return raw(page, "\r\n".join([*lines, "", ""]).encode())
