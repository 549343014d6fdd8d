"""`edge-app why`: a running process says what holds its level."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from governor_samples import HOT, make_governor, make_sample
from waiting import wait_for

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.journal import REMEMBERED, Journal
from edge_app.why import WhyServer, ask, running, runtime_directory, text_of

ABOUT = {"model": "digits", "source": "test:digits", "policy": "balanced"}


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "edge-app"


@pytest.fixture
def server() -> Iterator[WhyServer]:
    journal = Journal(ABOUT)
    governor = make_governor()
    for second in range(120):
        journal.add(governor.step(make_sample(float(second), HOT if second > 5 else 50.0)))
    server = WhyServer(journal.to_json)
    yield server
    server.close()


def test_the_answer_names_the_cap_that_binds(server: WhyServer) -> None:
    state = ask(None)
    assert state["pid"] == os.getpid() and state["model"] == "digits"
    assert state["decision"]["cause"] == "thermal"
    text = "\n".join(text_of(state))
    assert "held by thermal" in text and "cpu-thermal" in text
    for cap in ("battery", "deadline", "load", "failsafe"):
        assert cap in text
    assert "-> " in text, "the changes of level are listed"


def test_it_can_be_asked_again_and_again(server: WhyServer) -> None:
    assert len({json.dumps(ask(os.getpid())) for _ in range(50)}) == 1


def test_a_client_that_says_nothing_blocks_nobody(server: WhyServer) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _ in range(5)]
    try:
        for client in silent:
            client.connect(str(server.path))
        assert ask(None)["policy"] == "balanced"
    finally:
        for client in silent:
            client.close()


def test_nobody_is_running() -> None:
    with pytest.raises(AppError, match="no edge-app is running") as caught:
        ask(None)
    assert caught.value.exit_code == EXIT_USAGE


def test_an_unknown_process(server: WhyServer) -> None:
    with pytest.raises(AppError, match=f"running: {os.getpid()}"):
        ask(1)


def test_what_a_killed_process_left_behind_is_not_asked(own_directory: Path) -> None:
    own_directory.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(own_directory / "4194303.sock"))
    assert running() == {}


def test_the_socket_is_private_and_goes_away(own_directory: Path) -> None:
    server = WhyServer(dict)
    assert own_directory.stat().st_mode & 0o777 == 0o700
    assert server.path.exists()
    server.close()
    assert not server.path.exists()


def test_a_directory_that_belongs_to_others_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(file))
    server = WhyServer(dict)
    assert str(runtime_directory()) in server.problem
    server.close()


def test_the_journal_stays_small() -> None:
    journal = Journal(ABOUT)
    for index in range(10 * REMEMBERED):
        journal.note("test", str(index))
    history = journal.to_json()["history"]
    assert len(history) == REMEMBERED and history[-1]["text"] == str(10 * REMEMBERED - 1)


def test_a_real_run_is_asked(start_edge_app: Any, edge_app: Any) -> None:
    process = start_edge_app("run", "--replay-sensors", "heat-and-recover")
    wait_for(lambda: process.pid in running() and ask(process.pid)["decision"])
    result = edge_app("why")
    assert result.returncode == 0, result.stderr
    assert f"process {process.pid}" in result.stdout and "caps" in result.stdout
    state = json.loads(edge_app("why", process.pid, "--json").stdout)
    assert state["source"] == "test:digits"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert edge_app("why").returncode == EXIT_USAGE
