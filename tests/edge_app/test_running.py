"""A real process that goes on: policies that change under it, signals, and what it remembers."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from edge_app.why import ask, running


@pytest.fixture(autouse=True)
def own_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def state(pid: int) -> dict[str, Any]:
    wait_for(lambda: pid in running())
    return wait_for(lambda: (found := ask(pid)) and found["decision"] and found)


def kinds(pid: int) -> list[str]:
    return [entry["event"] for entry in state(pid)["history"]]


def device(root: Path, celsius: float | None) -> Path:
    """A copy of a device's files with one thermal zone; None: its sensor gives nothing."""
    zone = root / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text("" if celsius is None else f"{round(celsius * 1000)}\n")
    (root / "proc").mkdir(exist_ok=True)
    return root


def test_a_policy_that_changes_on_disk_is_followed(start_edge_app: Any, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[levels]\nmax_bits = 8\n")
    root = device(tmp_path / "root", 45.0)
    process = start_edge_app("run", "--policy", policy, "--sysroot", root)
    wait_for(lambda: state(process.pid)["decision"]["bits"] == 8)
    policy.write_text("[levels]\nmax_bits = 4\n")
    wait_for(lambda: state(process.pid)["decision"]["bits"] == 4)
    assert {"policy_changed", "policy_reloaded"} <= set(kinds(process.pid))
    text = " ".join(entry["text"] for entry in state(process.pid)["history"])
    assert "levels.max_bits" in text
    policy.write_text("[levels]\nmax_bits = 40\n")
    wait_for(lambda: "policy_rejected" in kinds(process.pid))
    (rejected,) = [e for e in state(process.pid)["history"] if e["event"] == "policy_rejected"]
    assert f"{policy}:2:" in rejected["text"] and "the old policy stays" in rejected["text"]
    assert state(process.pid)["decision"]["bits"] == 4
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: kinds(process.pid).count("policy_rejected") == 2)
    policy.write_text("[levels]\nmax_bits = 4\n")
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: kinds(process.pid).count("policy_changed") == 2)
    process.terminate()
    assert process.wait(timeout=60) == 0


def test_the_state_is_printed_on_request(start_edge_app: Any, tmp_path: Path) -> None:
    process = start_edge_app("run", "--sysroot", device(tmp_path / "root", 45.0))
    state(process.pid)
    process.send_signal(signal.SIGUSR1)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    dumped = [line for line in messages.splitlines() if line.startswith("{")]
    assert len(dumped) == 1 and json.loads(dumped[0])["pid"] == process.pid
    assert process.returncode == 130


def test_a_crash_loop_does_not_reset_the_fail_safe(start_edge_app: Any, tmp_path: Path) -> None:
    root, memory = device(tmp_path / "root", 45.0), tmp_path / "memory.json"
    options = ("--sysroot", root, "--state", memory, "--set", "failsafe.after_s=1")
    process = start_edge_app("run", *options)
    wait_for(lambda: state(process.pid)["decision"]["bits"] == 8)
    device(root, None)
    wait_for(lambda: state(process.pid)["decision"]["cause"] == "failsafe")
    wait_for(lambda: state(process.pid)["decision"]["bits"] == 2)
    process.kill()
    process.wait()
    # The sensor is back, but not for long enough to be trusted.
    device(root, 45.0)
    again = start_edge_app("run", *options)
    decision = state(again.pid)["decision"]
    assert (decision["bits"], decision["cause"]) == (2, "failsafe")
    fresh = start_edge_app("run", *options[:2], *options[4:], "--state", tmp_path / "other.json")
    assert state(fresh.pid)["decision"]["bits"] == 8
