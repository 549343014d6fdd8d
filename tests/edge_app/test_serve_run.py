"""`edge-app run --serve` as its users run it, with crowds."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from running import COMMAND, Run, environment

WAIT_S = 60.0


class Served:
    """A running program with its page."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "run", "--serve", "127.0.0.1:0", *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment() | {"EDGE_APP_TOKEN": "from the environment"},
        )
        self.lines: list[str] = []
        self._told = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._told.wait(WAIT_S), self.lines

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            found = re.search(r"page http://127\.0\.0\.1:(\d+)/", line)
            if found:
                self.port = int(found[1])
                self._told.set()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=WAIT_S) as got:
            text: str = got.read().decode()
            return text

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.get("/state.json"))
        return state

    def wait(self, condition: str) -> dict[str, Any]:
        """The state as soon as ``condition``, an expression about ``state``, is true."""
        limit = time.monotonic() + WAIT_S
        while not eval(condition, {"state": (state := self.state())}):
            assert time.monotonic() < limit, (condition, state)
            time.sleep(0.1)
        return state

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def served() -> Iterator[Served]:
    program = Served("--camera", "test:digits")
    yield program
    program.end()


@pytest.fixture(scope="module")
def lasting() -> Iterator[Served]:
    """For tests that leave it as it was."""
    program = Served("--camera", "test:digits")
    yield program
    program.end()


def test_a_run_shows_its_frames_and_ends_with_streams_open(served: Served) -> None:
    served.wait("state['frames']['classified'] > 5 and state['decision']")
    assert served.get("/healthz") == "frames come\n"
    assert 'edge_app_frames_total{result="ok"}' in served.get("/metrics")
    with socket.create_connection(("127.0.0.1", served.port), WAIT_S) as stream:
        stream.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert stream.recv(1000).startswith(b"HTTP/1.1 200 OK")
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(WAIT_S) == 0
    assert not any("from the environment" in line for line in served.lines)
    assert not any("Traceback" in line for line in served.lines)


def test_the_policy_is_read_again_with_the_token(lasting: Served) -> None:
    def post(token: str) -> int:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{lasting.port}/-/reload",
            method="POST",
            headers={"Authorization": f"Bearer {token}"},
        )
        try:
            with urllib.request.urlopen(asked, timeout=WAIT_S) as got:
                status: int = got.status
                return status
        except urllib.error.HTTPError as error:
            return error.code

    assert post("wrong") == 401
    assert post("from the environment") == 200
    lasting.wait("any(entry['event'] == 'policy_changed' for entry in state['history'])")


def test_what_if_runs_the_simulator_beside_the_run(lasting: Served) -> None:
    report = json.loads(
        lasting.get("/what-if?device=pi5-passive&hours=0.2&control_c=70&ambient=30")
    )
    now, then = (run["summary"] for run in report["runs"])
    assert (now["governor"], then["governor"]) == ("this policy", "what if")
    assert then["peak_c"] < now["peak_c"] < 90.0
    assert "<table" in report["html"] and "pi5-passive" in report["html"]
    assert len(report["runs"][0]["hours"]) == len(report["runs"][0]["chip_c"]) == 24


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("device=toaster", "no simulated device"),
        ("hours=1000", "hours: must be"),
        ("hours=nan", "hours: must be"),
        ("control_c=70;x", "control_c: must be a number"),
        ("control_c=20&hours=0.1", "thermal.control_c"),
        ("ambient=hot&hours=0.1", "must be °C or FROM..TO"),
        ("max_bits=9&hours=0.1", "levels.max_bits"),
    ],
)
def test_what_if_says_what_is_wrong(lasting: Served, query: str, said: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        lasting.get(f"/what-if?{query}")
    text = caught.value.read().decode()
    assert caught.value.code == 400 and said in text and "/tmp" not in text


def test_one_simulation_runs_at_a_time_and_none_for_other_pages(lasting: Served) -> None:
    statuses: Counter[int] = Counter()

    def ask(**headers: str) -> None:
        url = f"http://127.0.0.1:{lasting.port}/what-if?hours=2&control_c=70"
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            with urllib.request.urlopen(
                urllib.request.Request(url, headers=given), timeout=WAIT_S * 3
            ) as got:
                statuses[got.status] += 1
        except urllib.error.HTTPError as error:
            statuses[error.code] += 1

    ask(Sec_Fetch_Site="cross-site")
    assert statuses == {403: 1}
    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert statuses == {403: 1, 200: 1, 429: 3}


def test_an_address_that_is_none_ends_the_program(edge_app: Run) -> None:
    done = edge_app("run", "--max-frames", 1, "--serve", "nowhere")
    assert done.returncode == 2 and "HOST:PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_option_nothing_of_it_is_loaded() -> None:
    code = """
import sys
sys.argv = ["edge-app", "run", "--max-frames", "3"]
import edge_app.cli
try:
    edge_app.cli.main()
except SystemExit:
    print(sorted(sys.modules.keys() & {"prometheus_client", "edge_app.serve", "asyncio"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout.strip() == "[]"


class Crowd:
    """Connections of all kinds that one thread reads as fast as they give, or not at all."""

    def __init__(self, port: int) -> None:
        self.received: Counter[str] = Counter()
        self._selector = selectors.DefaultSelector()
        self._end = threading.Event()
        self._open: list[socket.socket] = []
        kinds = {
            "events": (100, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n", True),
            "pictures": (30, b"GET /picture.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n", True),
            "events unread": (40, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n", False),
            "half a request": (30, b"GET / HTTP/1.1\r\nHost: loc", False),
        }
        for kind, (count, sent, reads) in kinds.items():
            for _ in range(count):
                connection = socket.create_connection(("127.0.0.1", port), WAIT_S)
                connection.sendall(sent)
                self._open.append(connection)
                if reads:
                    self._selector.register(connection, selectors.EVENT_READ, kind)
        self.count = len(self._open)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._end.is_set():
            for key, _ in self._selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(65536)
                self.received[key.data] += len(data)
                if not data:
                    self._selector.unregister(key.fileobj)

    def leave(self) -> None:
        self._end.set()
        self._thread.join()
        for connection in self._open:
            connection.close()


@pytest.mark.slow
def test_two_hundred_connections_slow_neither_frames_nor_the_governor(lasting: Served) -> None:
    def progress(seconds: float) -> tuple[float, float]:
        """Frames a second, and decisions a second."""
        before, began = lasting.state(), time.monotonic()
        time.sleep(seconds)
        after, took = lasting.state(), time.monotonic() - began
        frames = after["frames"]["classified"] - before["frames"]["classified"]
        return frames / took, (after["decision"]["t"] - before["decision"]["t"]) / took

    lasting.wait("state['frames']['classified'] > 50 and state['decision']")
    alone, _ = progress(5.0)
    crowd = Crowd(lasting.port)
    try:
        assert crowd.count == 200
        time.sleep(1.0)
        cpu = cpu_seconds(lasting.process.pid)
        watched, decisions = progress(10.0)
        used = (cpu_seconds(lasting.process.pid) - cpu) / 10.0
        assert lasting.get("/healthz") == "frames come\n"
    finally:
        crowd.leave()
    print(
        f"\n{alone:.1f} frames a second alone, {watched:.1f} with {crowd.count} connections; "
        f"{decisions:.2f} decisions a second; {used:.0%} of a core"
    )
    assert crowd.received["events"] > 100_000 and crowd.received["pictures"] > 100_000
    # The machine that tests may be busy with other things, and the crowd itself costs time.
    assert watched > 0.6 * alone
    assert decisions > 0.5


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
