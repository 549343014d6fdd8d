"""What doctor measures and says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_app.doctor import measure_run, peak_memory_mib


def test_peak_memory_is_the_childs_own_and_counts_what_was_freed() -> None:
    code = "x = bytearray(b'x') * 200_000_000; del x; print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        peak = peak_memory_mib(process.pid)
        process.stdin.close()
    assert peak is not None and 190 < peak < 260
    assert peak_memory_mib(process.pid) is None


def test_a_run_is_measured_to_its_first_result() -> None:
    startup = measure_run()
    assert 0.01 < startup.first_result_s < 60
    assert 10 < startup.peak_mib < 150


def test_doctor_says_what_works_and_what_the_governor_sees(edge_app: Any) -> None:
    result = edge_app("doctor")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    for title in ("Program", "Models", "Cameras", "What the governor sees", "Start-up"):
        assert f"\n{title}" in result.stdout
    assert "PROBLEM" not in result.stdout
    for line in (
        "first result",
        "resident memory",
        "edge-app --help",
        "not on this device",
        "digits",
    ):
        assert f"\n  {line}" in result.stdout


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """Files of a small device with one thermal zone and nothing else."""
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("soc-thermal\n")
    (zone / "temp").write_text("48250\n")
    (tmp_path / "proc").mkdir()
    return tmp_path


def test_doctor_looks_below_another_root(edge_app: Any, device: Path) -> None:
    result = edge_app("doctor", "--sysroot", device)
    sees = result.stdout.split("What the governor sees")[1].split("Start-up")[0]
    (zone,) = [line for line in sees.splitlines() if "soc-thermal" in line]
    assert "48" in zone and " ok " in zone
    (absent,) = [line for line in sees.splitlines() if "not on this device" in line]
    assert "battery" in absent and "soc-thermal" not in absent


def test_doctor_names_what_is_wrong(edge_app: Any, tmp_path: Path) -> None:
    result = edge_app("doctor", "--sysroot", tmp_path / "nowhere")
    assert result.returncode == 2
    assert "no such directory" in result.stderr
    result = edge_app("doctor", env={"EDGE_NATIVE_ISA": "mmx"})
    assert result.returncode == 2
    assert "mmx" in result.stderr and "Traceback" not in result.stderr
