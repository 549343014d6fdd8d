"""The service under a real systemd: started, seen, killed when it hangs, restarted or left alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_manager import BINARY, CannotStart, ServiceManager
from waiting import wait_for

from edge_app.service.unit import NAME

pytestmark = pytest.mark.slow

EDGE_APP = (sys.executable, "-m", "edge_app")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    if not BINARY.exists():
        if os.environ.get("CI"):
            pytest.fail("no systemd")
        pytest.skip("needs apt-get install systemd")
    try:
        running = ServiceManager(tmp_path)
    except CannotStart as reason:
        pytest.skip(f"systemd cannot be started here (sudo -E pytest may): {reason}")
    # A test need not wait for half a minute.
    drop_in = tmp_path / f"config/systemd/user/{NAME}.d/test.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nWatchdogSec=10\nRestartSec=1\n")
    yield running
    running.close()


def installed(manager: ServiceManager, *arguments: str) -> None:
    done = manager.run(*EDGE_APP, "service", "install", "--user", "--", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "systemd has read it"


def test_it_is_ready_is_killed_when_it_hangs_and_comes_back(manager: ServiceManager) -> None:
    installed(manager, "--camera", "test:digits")
    # Returns when systemd has been told READY=1, or has given up.
    manager.systemctl("start", NAME)
    shown = manager.shown(NAME)
    assert (shown["ActiveState"], shown["NRestarts"]) == ("active", "0")
    wait_for(lambda: "bits" in manager.shown(NAME)["StatusText"])
    first = shown["MainPID"]

    manager.systemctl("kill", "--signal=SIGSTOP", NAME)
    wait_for(lambda: manager.shown(NAME)["Result"] == "watchdog")
    wait_for(lambda: manager.shown(NAME)["ActiveState"] == "active")
    again = manager.shown(NAME)
    assert again["NRestarts"] == "1" and again["MainPID"] != first

    told = manager.run(*EDGE_APP, "service", "status", "--user")
    assert told.returncode == 0
    assert told.stdout.startswith(f"{NAME}: active (running)\n  restarts 1,")
    manager.systemctl("stop", NAME)
    assert manager.shown(NAME)["Result"] == "success"
    told = manager.run(*EDGE_APP, "service", "status", "--user")
    assert told.returncode == 3 and "bits" not in told.stdout, "it holds no level any more"


def test_what_does_not_mend_itself_is_not_tried_again(manager: ServiceManager) -> None:
    installed(manager, "--set", "thermal.control=hot")
    with pytest.raises(AssertionError):
        manager.systemctl("start", NAME)
    shown = manager.shown(NAME)
    assert (shown["ActiveState"], shown["ExecMainStatus"]) == ("failed", "2")
    assert shown["NRestarts"] == "0"


def test_a_camera_that_is_not_there_is_tried_again(manager: ServiceManager) -> None:
    installed(manager, "--camera", "/dev/video99")
    with pytest.raises(AssertionError):
        manager.systemctl("start", NAME)
    wait_for(lambda: int(manager.shown(NAME)["NRestarts"]) >= 2)
    wait_for(lambda: manager.shown(NAME)["ExecMainStatus"] == "3")
