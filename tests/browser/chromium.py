"""A real Chromium, driven over its DevTools protocol: a WebSocket (RFC 6455) that carries JSON."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
START_S = 60.0
ANSWER_S = 30.0


def find() -> str | None:
    """Chromium's path; None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class WebSocket:
    """A client's side of a connection, text messages only."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self._socket = socket.create_connection((host, port), ANSWER_S)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._received = b""
        while b"\r\n\r\n" not in self._received:
            self._received += self._socket.recv(65536)
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head

    def send(self, text: str) -> None:
        payload, mask = text.encode(), os.urandom(4)
        size = len(payload)
        if size < 126:
            length = bytes([0x80 | size])
        elif size < 65536:
            length = bytes([0x80 | 126]) + struct.pack(">H", size)
        else:
            length = bytes([0x80 | 127]) + struct.pack(">Q", size)
        # One big integer is a fast way to apply the mask.
        repeated = (mask * (size // 4 + 1))[:size]
        masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
        self._socket.sendall(b"\x81" + length + mask + masked.to_bytes(size, "big"))

    def receive(self, timeout: float) -> str | None:
        """The next message; None if none came in time."""
        if not self._received and not select.select([self._socket], [], [], timeout)[0]:
            return None
        message = b""
        while True:
            first, second = self._take(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack(">H", self._take(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self._take(8))
            message += self._take(size)
            if first & 0x80:
                return message.decode()

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            data = self._socket.recv(1 << 20)
            if not data:
                raise ConnectionError("Chromium has closed the connection")
            self._received += data
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def close(self) -> None:
        self._socket.close()


class Tab:
    """One page. ``problems``: what its console complained about, and what failed to load."""

    def __init__(self, address: str) -> None:
        host, _, rest = address.removeprefix("ws://").partition(":")
        port, _, path = rest.partition("/")
        self._socket = WebSocket(host, int(port), f"/{path}")
        self._number = 0
        self._loaded = False
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self._number += 1
        number = self._number
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        limit = time.monotonic() + ANSWER_S
        while time.monotonic() < limit:
            message = self._receive(limit - time.monotonic())
            if message is not None and message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                result: dict[str, Any] = message["result"]
                return result
        raise TimeoutError(method)

    def _receive(self, timeout: float) -> dict[str, Any] | None:
        text = self._socket.receive(timeout)
        if text is None:
            return None
        message: dict[str, Any] = json.loads(text)
        given = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(given["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if given["type"] in ("error", "warning", "assert"):
                self.problems.append(json.dumps(given["args"])[:500])
            case "Log.entryAdded" if given["entry"]["level"] in ("error", "warning"):
                self.problems.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")
        return message

    def open(self, url: str) -> None:
        """Go there, until it has loaded."""
        self._loaded = False
        self.call("Page.navigate", url=url)
        limit = time.monotonic() + ANSWER_S
        while not self._loaded:
            assert time.monotonic() < limit, f"{url} does not load"
            self._receive(0.5)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 20.0) -> Any:
        """The value as soon as it is true."""
        limit = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < limit, f"never true: {expression}"
            time.sleep(0.05)
        return value

    def text(self, selector: str) -> str:
        """What is written there."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def size(self, width: int, height: int, mobile: bool = False) -> None:
        """Of the window; ``mobile``: a phone's screen, two pixels a point."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )

    def prefer(self, scheme: str) -> None:
        """``light`` or ``dark``, as the system's setting would."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def scripts(self, on: bool) -> None:
        self.call("Emulation.setScriptExecutionDisabled", value=not on)

    def press(self, key: str, code: int = 0) -> None:
        """One key, as from a keyboard."""
        text = {"text": key} if len(key) == 1 else {}
        named = {"key": key, "windowsVirtualKeyCode": code or ord(key.upper())}
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """A PNG of the page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._socket.close()


class Chromium:
    """A browser with a profile of its own."""

    def __init__(self, program: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        file = folder / "DevToolsActivePort"
        limit = time.monotonic() + START_S
        while not (file.exists() and file.read_text().count("\n")):
            assert time.monotonic() < limit, "Chromium does not start"
            assert self._process.poll() is None, "Chromium has ended"
            time.sleep(0.05)
        self._port = int(file.read_text().splitlines()[0])

    def tab(self) -> Tab:
        """A new page."""
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/json/new?about:blank", method="PUT"
        )
        with urllib.request.urlopen(asked, timeout=ANSWER_S) as answer:
            return Tab(json.load(answer)["webSocketDebuggerUrl"])

    def close(self) -> None:
        """End it and all of its processes, which are a group of their own."""
        os.killpg(self._process.pid, 9)
        self._process.wait()


NewTab = Callable[..., Tab]
"""Opens a tab: width, height, and whether it is a phone's."""
