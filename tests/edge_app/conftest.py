"""Running the program as a user does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import COMMAND, TIMEOUT_S, Result, Run, environment
from serve_rig import TOKEN, Rig
from trees import tree

from edge_app.cli import main
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
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the program in this process, which takes a tenth of the time: for what leaves signal
    handlers alone."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["edge-app", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return Result(int(ended.value.code or 0), output.out, output.err)

    monkeypatch.setenv("COLUMNS", "120")
    return run


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A copy of the files of a device that has one zone and one battery."""
    zone, supply = "sys/class/thermal/thermal_zone0", "sys/class/power_supply/BAT0"
    return tree(
        tmp_path / "device",
        {
            f"{zone}/type": "cpu-thermal",
            f"{zone}/temp": "61250",
            f"{zone}/trip_point_0_type": "passive",
            f"{zone}/trip_point_0_temp": "80000",
            f"{supply}/type": "Battery",
            f"{supply}/status": "Discharging",
            f"{supply}/capacity": "50",
            f"{supply}/energy_now": "20000000",
            f"{supply}/energy_full": "40000000",
            "proc/stat": "cpu  1 2 3 4 0 0 0 0 0 0",
        },
    )


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
