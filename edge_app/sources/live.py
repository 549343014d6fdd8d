"""Live sources: cameras and network streams, of which only the newest frame is of interest."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_app.errors import EXIT_SOURCE_LOST, EXIT_SOURCE_UNAVAILABLE, AppError
from edge_app.sources.base import Frame, SourceStatus, require_cv2

OPEN_TIMEOUT_S = 8.0
LOST_AFTER_S = 10.0
"""A source that gave no frame for so long is lost."""

CAMERA_ADVICE = (
    "plug one in, check that you are in the group 'video', or try: edge-app run --camera FILE, "
    "a directory of images, or an http:// or rtsp:// address; "
    "edge-app run without --camera needs none"
)


class LiveStream:
    """An opened ``cv2.VideoCapture`` read by a thread of its own into a slot for one frame.

    Reading in a thread keeps the driver's queue empty: without it each frame waits behind
    those that arrived while the model was busy, and latency piles up. A frame is handed out at
    most once. ``read`` of the driver may hang for ever, hence the daemon thread and the watch
    on the time since the last frame.
    """

    live = True
    nominal_fps = None
    classes: tuple[str, ...] = ()

    def __init__(self, name: str, capture: Any, lost_after_s: float = LOST_AFTER_S) -> None:
        self.name = name
        self.overwritten = 0
        self._failed = 0
        self._capture = capture
        self._lost_after_s = lost_after_s
        self._condition = threading.Condition()
        self._slot: Frame | None = None
        self._last = time.monotonic()
        self._closing = False
        self._thread = threading.Thread(target=self._grab, name="grab", daemon=True)
        self._thread.start()

    def _grab(self) -> None:
        while not self._closing:
            started = time.monotonic()
            good, image = self._capture.read()
            ended = time.monotonic()
            if not good:
                self._failed += 1
                # Some drivers fail at once and for ever: do not spin on them.
                time.sleep(0.02)
                continue
            with self._condition:
                self.overwritten += self._slot is not None
                self._slot = Frame(image, "bgr", ended, ended - started)
                self._last = ended
                self._condition.notify()
        self._capture.release()

    @property
    def losses(self) -> Mapping[str, int]:
        return {"capture": self._failed, "stale": self.overwritten}

    @property
    def status(self) -> SourceStatus:
        return SourceStatus()

    def read(self, timeout: float) -> Frame | None:
        with self._condition:
            if self._slot is None:
                self._condition.wait(timeout)
            frame, self._slot = self._slot, None
            silent = time.monotonic() - self._last
        if frame is None and silent > self._lost_after_s:
            raise AppError(
                f"{self.name}: no frame for {silent:.0f} s; the source is gone "
                "(unplugged, taken by another program, or the network is down)",
                EXIT_SOURCE_LOST,
            )
        return frame

    def close(self) -> None:
        """Ask the thread to release the device; a hanging driver is left behind."""
        self._closing = True
        self._thread.join(timeout=1.0)


def cameras(sysroot: Path = Path("/")) -> list[tuple[Path, str]]:
    """Video devices of this machine with their names, by number."""
    found = [p for p in (sysroot / "dev").glob("video*") if p.name[5:].isdigit()]
    named = []
    for path in sorted(found, key=lambda p: int(p.name[5:])):
        label = sysroot / "sys/class/video4linux" / path.name / "name"
        try:
            named.append((path, label.read_text(errors="replace").strip()))
        except OSError:
            named.append((path, "no name"))
    return named


def open_camera(device: str | None) -> LiveStream:
    """``device``: ``/dev/...``; None for the first camera of this machine that gives a frame.

    AppError with exit code 3 if there is none, or if it cannot be opened.
    """
    candidates = [str(path) for path, _ in cameras()] if device is None else [device]
    if not candidates:
        raise AppError(f"no camera found; {CAMERA_ADVICE}", EXIT_SOURCE_UNAVAILABLE)
    present = [path for path in candidates if Path(path).exists()]
    if not present:
        others = ", ".join(str(path) for path, _ in cameras()) or "none"
        raise AppError(
            f"no camera at {candidates[0]} (cameras here: {others}); {CAMERA_ADVICE}",
            EXIT_SOURCE_UNAVAILABLE,
        )
    cv2 = require_cv2()
    for path in present:
        # A camera may show up as several nodes of which only one gives pictures.
        capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
        if capture.isOpened() and capture.read()[0]:
            return LiveStream(path, capture)
        capture.release()
    raise AppError(
        f"{', '.join(present)}: present, but gives no picture (busy, no permission, or no "
        f"camera); {CAMERA_ADVICE}",
        EXIT_SOURCE_UNAVAILABLE,
    )


def open_url_capture(url: str, name: str) -> Any:
    """An opened ``cv2.VideoCapture`` on an http, https, rtsp or rtsps address.

    AppError with exit code 3 calls it ``name``, in which the password does not appear.
    """
    cv2 = require_cv2()
    limit = int(OPEN_TIMEOUT_S * 1000)
    capture = cv2.VideoCapture(
        url,
        cv2.CAP_FFMPEG,
        [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit],
    )
    if not capture.isOpened():
        raise AppError(
            f"{name}: cannot be opened; check that the address answers and streams video "
            "(user and password go before the host: rtsp://user:password@host/path)",
            EXIT_SOURCE_UNAVAILABLE,
        )
    return capture
