"""Running the program as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "edge_app"]
TIMEOUT_S = 120.0

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    """Ours, without what would make the child's output depend on who runs the tests."""
    unwanted = ("FORCE_COLOR", "PYTHONUNBUFFERED")
    return {key: os.environ[key] for key in os.environ if key not in unwanted} | {"COLUMNS": "120"}


@pytest.fixture(scope="session")
def edge_app() -> Run:
    """``edge_app("run", "--max-frames", 3)`` runs the program to its end, stderr apart."""

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            capture_output=True,
            check=False,
            text=True,
            timeout=TIMEOUT_S,
            env=environment() | options.pop("env", {}),
            **options,
        )

    return run


@pytest.fixture
def start_edge_app() -> Any:
    """Like ``edge_app``, but returns the running process; it is ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()
