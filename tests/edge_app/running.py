"""How the program is run in tests."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

COMMAND = [sys.executable, "-m", "edge_app"]
TIMEOUT_S = 300.0

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    """Ours, without what would make the child's output depend on who runs the tests."""
    unwanted = ("FORCE_COLOR", "PYTHONUNBUFFERED")
    return {key: os.environ[key] for key in os.environ if key not in unwanted} | {"COLUMNS": "120"}


@dataclass(frozen=True)
class Result:
    """What a run in this process came to, with the names that `subprocess` gives."""

    returncode: int
    stdout: str
    stderr: str


def lines(text: str) -> list[Any]:
    """What was printed, one JSON document a line."""
    return [json.loads(line) for line in text.splitlines()]


def on_a_terminal(*arguments: object) -> tuple[int, str]:
    """Exit code, and everything that was written to the screen."""
    terminal, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "edge_app", *map(str, arguments)],
        stdout=child,
        stderr=child,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "50"},
    ) as process:
        os.close(child)
        screen = bytearray()
        while True:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:  # Linux: the other side was closed
                break
            screen += chunk
    os.close(terminal)
    return process.returncode, screen.decode()
