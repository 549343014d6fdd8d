"""The service: what systemd is told, when the watchdog goes hungry, and a unit that systemd accepts."""

from __future__ import annotations

import grp
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_sinks import FRAME, decision, record

from edge_app.errors import EXIT_USAGE
from edge_app.service.notify import FRAMES_SILENT_S, GOVERNOR_SILENT_S, Notifier, ServiceSink
from edge_app.service.unit import ServiceOptions, unit_text
from edge_app.sources import SourceStatus


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self.socket.settimeout(60.0)

    def receive(self) -> dict[str, str]:
        lines = self.socket.recv(65536).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def waiting(self) -> list[dict[str, str]]:
        """What has come and was not read."""
        found = []
        self.socket.setblocking(False)
        try:
            while True:
                found.append(self.receive())
        except BlockingIOError:
            self.socket.settimeout(60.0)
            return found


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "file" else f"@edge-app-{os.getpid()}"
    manager = Manager(address)
    yield manager
    manager.socket.close()


def sink_of(
    manager: Manager, source: SourceStatus, paused: bool = False
) -> tuple[Any, list[float]]:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "3000000"}
    clock = [100.0]
    return (
        ServiceSink(Notifier(environment), lambda: source, lambda: paused, lambda: clock[0]),
        clock,
    )


def test_ready_comes_with_the_first_decision_and_the_status_follows(manager: Manager) -> None:
    sink, clock = sink_of(manager, SourceStatus())
    sink.tick()
    assert not any("READY" in message for message in manager.waiting())
    sink.decision(decision(bits=8, cause="none", why="cool"))
    first = manager.receive()
    assert first["READY"] == "1" and "8 bits" in first["STATUS"]
    sink.decision(decision(bits=2, cause="thermal", why="cpu-thermal 91 °C"))
    clock[0] += 2.0
    sink.tick()
    (status,) = [message for message in manager.waiting() if "STATUS" in message]
    assert status == {"STATUS": "2 bits (thermal): cpu-thermal 91 °C"}
    sink.close()
    assert manager.receive() == {"STOPPING": "1"}


def fed(sink: Any, manager: Manager, clock: list[float], seconds: float) -> bool:
    manager.waiting()
    clock[0] += seconds
    sink.tick()
    return {"WATCHDOG": "1"} in manager.waiting()


def test_the_watchdog_is_fed_by_progress_only(manager: Manager) -> None:
    sink, clock = sink_of(manager, SourceStatus())
    assert fed(sink, manager, clock, 1.0)
    assert not fed(sink, manager, clock, 0.5), "three times in the manager's interval is enough"
    assert fed(sink, manager, clock, 1.0)
    sink.frame(record(), FRAME)
    assert not fed(sink, manager, clock, GOVERNOR_SILENT_S + 1), "the governor is silent"
    sink.decision(decision())
    assert fed(sink, manager, clock, 1.0)
    clock[0] += FRAMES_SILENT_S
    sink.decision(decision())
    assert not fed(sink, manager, clock, 1.0), "no frames, and nobody knows why"
    sink.frame(record(), FRAME)
    assert fed(sink, manager, clock, 1.0)


@pytest.mark.parametrize(
    ("source", "paused"),
    [(SourceStatus("reconnecting", 3, "no frame for 7 s"), False), (SourceStatus(), True)],
)
def test_a_camera_that_is_gone_or_a_pause_is_no_reason_to_restart(
    manager: Manager, source: SourceStatus, paused: bool
) -> None:
    sink, clock = sink_of(manager, source, paused)
    for _ in range(100):
        sink.decision(decision())
        assert fed(sink, manager, clock, 1.5)


def test_without_a_manager_nothing_is_sent() -> None:
    notifier = Notifier({})
    assert not notifier.present and notifier.watchdog_s == 0.0
    notifier.send(READY="1")
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}).send(READY="1")
    somebody_else = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert Notifier(somebody_else).watchdog_s == 0.0


def test_a_real_run_feeds_its_manager(
    start_edge_app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = Manager(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    process = start_edge_app("run")
    assert manager.receive()["READY"] == "1"
    seen = [manager.receive() for _ in range(10)]
    assert sum("WATCHDOG" in message for message in seen) >= 5
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    manager.waiting()
    time.sleep(1.0)
    assert manager.waiting() == [], "a process that hangs is silent"
    process.send_signal(signal.SIGCONT)
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert {"STOPPING": "1"} in manager.waiting()
    manager.socket.close()


# --- the unit ----------------------------------------------------------------------------------

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and not os.environ.get("CI"),
    reason="needs apt-get install systemd",
)


@needs_systemd
@pytest.mark.parametrize("user", [False, True])
def test_systemd_accepts_the_unit(tmp_path: Path, user: bool) -> None:
    unit = tmp_path / "edge-app.service"
    arguments = ("--camera", "/dev/v4l/by-id/a camera's", "--set", "battery.reserve=5%$")
    unit.write_text(unit_text(ServiceOptions(arguments, user)))
    command = ["systemd-analyze", *(["--user"] if user else []), "verify", "--man=no", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True)
    complaints = [line for line in result.stderr.splitlines() if "edge-app.service" in line]
    assert complaints == []


@needs_systemd
def test_systemd_finds_the_unit_well_confined(tmp_path: Path) -> None:
    unit = tmp_path / "edge-app.service"
    unit.write_text(unit_text(ServiceOptions(())))
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-300:] + result.stderr


@pytest.mark.parametrize("here", [["root", "video"], ["video", "root", "render"]])
def test_only_groups_that_exist_are_asked_for(
    here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd refuses to start a unit (exit status 216) that names a group it does not know."""
    groups = [grp.struct_group((name, "x", number, [])) for number, name in enumerate(here)]
    monkeypatch.setattr(grp, "getgrall", lambda: groups)
    expected = " ".join(name for name in ("video", "render") if name in here)
    assert f"\nSupplementaryGroups={expected}\n" in unit_text(ServiceOptions(()))


def test_options_reach_the_program_as_they_were_given(edge_app: Any) -> None:
    shown = edge_app("service", "install", "--show", "--", "--camera", "a b", "--give-up", "0")
    assert shown.returncode == 0
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("ExecStart=")]
    assert line.endswith("-m edge_app run --camera 'a b' --give-up 0")
    for needed in ("Type=notify", "WatchdogSec=30", "RestartPreventExitStatus=2 5", "DynamicUser"):
        assert needed in shown.stdout
    of_a_user = edge_app("service", "install", "--user", "--show").stdout
    assert "DynamicUser" not in of_a_user and "CapabilityBoundingSet" not in of_a_user


def test_a_user_unit_is_written(
    edge_app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    result = edge_app("service", "install", "--user", "--", "--camera")
    if shutil.which("systemctl") is None:
        assert result.returncode == EXIT_USAGE and "no systemd" in result.stderr
        return
    assert result.returncode == 0, result.stderr
    unit = tmp_path / "systemd/user/edge-app.service"
    assert "run --camera\n" in unit.read_text()
    assert [path.name for path in unit.parent.iterdir()] == ["edge-app.service"]
    assert "enable --now edge-app.service" in result.stdout
