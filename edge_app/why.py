"""`edge-app why`: a running process is asked what holds its level, over a socket of its own.

The socket is a Unix one in a directory that only its user can enter; whoever connects is sent one
JSON object and the connection is closed. Nothing can be changed through it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_app.errors import EXIT_USAGE, AppError

SUFFIX = ".sock"
TIMEOUT_S = 2.0
SYSTEM_DIRECTORY = Path("/run/edge-app")
"""Where a service with ``RuntimeDirectory=edge-app`` has its socket."""


def runtime_directory() -> Path:
    """The directory for this process's socket: the service manager's, the user's, or one in /tmp."""
    given = os.environ.get("RUNTIME_DIRECTORY")
    if given:
        return Path(given.partition(":")[0])
    user = os.environ.get("XDG_RUNTIME_DIR")
    return Path(user) / "edge-app" if user else Path(f"/tmp/edge-app-{os.getuid()}")


class WhyServer:
    """Answers with ``state()`` until it is closed.

    A machine that allows no socket (a read-only or full file system) runs all the same: ``problem``
    then says why nobody can ask.
    """

    def __init__(self, state: Callable[[], dict[str, Any]]) -> None:
        self._state = state
        self.path = runtime_directory() / f"{os.getpid()}{SUFFIX}"
        self.problem = ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _private(self.path.parent)
            self.path.unlink(missing_ok=True)
            self._socket.bind(str(self.path))
            self._socket.listen(8)
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror or error}"
            self._socket.close()
            return
        threading.Thread(target=self._serve, name="why", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(TIMEOUT_S)
                connection.sendall(json.dumps(self._state(), ensure_ascii=False).encode())

    def close(self) -> None:
        """Stop answering and remove the socket."""
        if not self.problem:
            with contextlib.suppress(OSError):
                # Closing alone does not wake a thread that waits in accept.
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self.path.unlink(missing_ok=True)


def _private(directory: Path) -> None:
    """Make ``directory``; OSError if it is not ours alone, as it may not be in /tmp."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(0, "exists and belongs to somebody else")


def running() -> dict[int, Path]:
    """Process ids that can be asked, with their sockets; those of dead processes are left out."""
    found: dict[int, Path] = {}
    for directory in dict.fromkeys((runtime_directory(), SYSTEM_DIRECTORY)):
        for path in sorted(directory.glob(f"*{SUFFIX}")):
            if path.stem.isdigit() and Path(f"/proc/{path.stem}").exists():
                found[int(path.stem)] = path
    return found


def ask(pid: int | None) -> dict[str, Any]:
    """The state of process ``pid``, or of the only one that runs.

    AppError (exit code 2) if there is none, or several and none was named.
    """
    known = running()
    if pid is None:
        if not known:
            raise AppError(
                "no edge-app is running for this user; start one: edge-app run", EXIT_USAGE
            )
        if len(known) > 1:
            pids = ", ".join(str(number) for number in known)
            raise AppError(f"several are running: {pids}; say which: edge-app why PID", EXIT_USAGE)
        pid = next(iter(known))
    if pid not in known:
        there = ", ".join(str(number) for number in known) or "none"
        raise AppError(
            f"process {pid} is no edge-app run that can be asked; running: {there}", EXIT_USAGE
        )
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(known[pid]))
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        state: dict[str, Any] = json.loads(answer)
        return state
    except (OSError, ValueError) as error:
        raise AppError(f"process {pid} does not answer: {error}", EXIT_USAGE) from None


def print_why(pid: int | None, as_json: bool) -> None:
    """Print the answer for people, or as it came."""
    state = ask(pid)
    if as_json:
        print(json.dumps(state, ensure_ascii=False, indent=2))
    else:
        print("\n".join(text_of(state)))


def text_of(state: dict[str, Any]) -> list[str]:
    """The lines for people: level and binding cap, every cap with its reason, what happened."""
    lines = [
        f"process {state['pid']}, {state['model']}, {state['source']}, policy {state['policy']}"
    ]
    decision = state["decision"]
    if decision is None:
        return [*lines, "no decision yet"]
    rate = f" at {decision['fps']:g} frames a second" if decision["fps"] else ""
    held = (
        "nothing holds it down" if decision["cause"] == "none" else f"held by {decision['cause']}"
    )
    lines.append(f"{decision['bits']} bits{rate} since {state['since']}: {held}")
    lines.append(f"  {decision['why']}")
    lines.append("caps")
    width = max(len(name) for name in decision["caps"])
    for name, bits in decision["caps"].items():
        reason = decision["reasons"][name]
        lines.append(f"  {name:<{width}}  {bits} bits  {reason}")
    if state["history"]:
        lines.append("lately")
        lines += [
            f"  {entry['t']}  {entry['event']}: {entry['text']}" for entry in state["history"][-10:]
        ]
    return lines
