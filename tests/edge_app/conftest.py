"""Running the program as a user does."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from running import COMMAND, TIMEOUT_S, Run, environment


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
