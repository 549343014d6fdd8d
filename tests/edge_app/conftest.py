"""Running the program as a user does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from running import COMMAND, TIMEOUT_S, Run, environment
from serve_rig import TOKEN, Rig

from edge_app.serve import Page, open_page


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


@pytest.fixture
def rig() -> Rig:
    """A hub to be served, which has seen nothing yet."""
    return Rig()


@pytest.fixture
def page(rig: Rig) -> Iterator[Page]:
    """The page of ``rig``, which has seen a frame and a decision."""
    rig.frame()
    rig.decide()
    rig.hub.tick()
    page = open_page(rig.hub, "127.0.0.1:0", TOKEN)
    yield page
    page.close()
