"""Cameras of this machine: which there are, what they give, who holds them, and opening them.

Video4Linux: Documentation/userspace-api/media/v4l, `struct v4l2_fmtdesc` and `VIDIOC_ENUM_FMT`.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge_app.errors import EXIT_SOURCE_UNAVAILABLE, AppError
from edge_app.sources.base import Image, require_cv2
from edge_app.sources.live import Capture, LiveStream, Patience

CAMERA_ADVICE = (
    "plug one in, check that you are in the group 'video', or try: edge-app run --camera FILE, "
    "a directory of images, or an http:// or rtsp:// address; "
    "edge-app run without --camera needs none"
)

# struct v4l2_fmtdesc: index, type, flags, description[32], pixelformat, mbus_code, reserved[3]
_FMTDESC = struct.Struct("=III32sII3I")
_ENUM_FMT = 0xC0000000 | _FMTDESC.size << 16 | ord("V") << 8 | 2
_VIDEO_CAPTURE = 1


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


@dataclass(frozen=True)
class CameraStatus:
    """``formats``: pixel formats that it captures; empty for a node that captures none (encoders
    and metadata have nodes, too). ``holders``: programs that have it open, as ``name (pid)``, as
    far as this user may see them. ``problem``: why it cannot be asked."""

    path: Path
    name: str
    links: tuple[str, ...]
    formats: tuple[str, ...]
    holders: tuple[str, ...]
    problem: str = ""


def examine(sysroot: Path = Path("/")) -> list[CameraStatus]:
    """Every video device and what can be found out about it without starting it."""
    statuses = []
    for path, name in cameras(sysroot):
        try:
            formats, problem = _formats(path), ""
        except OSError as error:
            formats = ()
            problem = f"{error.strerror}; are you in the group 'video'?"
        links = tuple(str(link) for link in _links(path, sysroot))
        statuses.append(CameraStatus(path, name, links, formats, _holders(path), problem))
    return statuses


def _formats(path: Path) -> tuple[str, ...]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = []
    try:
        for index in range(64):
            request = bytearray(_FMTDESC.pack(index, _VIDEO_CAPTURE, 0, b"", 0, 0, 0, 0, 0))
            try:
                fcntl.ioctl(descriptor, _ENUM_FMT, request)
            except OSError:
                break  # EINVAL after the last format; ENOTTY for what is no video device
            found.append(describe_format(bytes(request)))
    finally:
        os.close(descriptor)
    return tuple(found)


def describe_format(answer: bytes) -> str:
    """``YUYV (YUYV 4:2:2)`` from the kernel's ``struct v4l2_fmtdesc``."""
    _, _, _, text, code, *_ = _FMTDESC.unpack(answer)
    name = struct.pack("=I", code & 0x7FFFFFFF).decode("ascii", "replace").strip()
    return f"{name} ({text.split(bytes(1))[0].decode('utf-8', 'replace')})"


def _links(path: Path, sysroot: Path) -> list[Path]:
    """Stable names, which stay the same when cameras are plugged in in another order."""
    directory = sysroot / "dev/v4l/by-id"
    links = sorted(directory.iterdir()) if directory.is_dir() else []
    return [link for link in links if link.resolve() == path.resolve()]


def _holders(path: Path) -> tuple[str, ...]:
    target = str(path.resolve())
    holders = []
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda p: int(p.name)):
        try:
            held = any(os.readlink(link) == target for link in (process / "fd").iterdir())
            if held:
                holders.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
        except OSError:
            continue  # it has ended, or belongs to somebody else
    return tuple(holders)


def print_cameras(sysroot: Path, as_json: bool) -> None:
    """The list for people, or as JSON, to stdout."""
    statuses = examine(sysroot)
    if as_json:
        print(
            json.dumps(
                [asdict(status) | {"path": str(status.path)} for status in statuses], indent=2
            )
        )
        return
    if not statuses:
        print(f"no camera: no {sysroot / 'dev'}/videoN; {CAMERA_ADVICE}")
    for status in statuses:
        print(f"{status.path}  {status.name}")
        if status.problem:
            print(f"  cannot be asked: {status.problem}")
        for link in status.links:
            print(f"  also {link}")
        if status.formats:
            print(f"  gives {', '.join(status.formats)}")
        elif not status.problem:
            print("  captures no pictures (a node of an encoder, or for metadata)")
        if status.holders:
            print(f"  open in {', '.join(status.holders)}")


def open_camera(device: str | None, patience: Patience | None = None) -> LiveStream:
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
    for path in present:
        # A camera may show up as several nodes of which only one gives pictures.
        try:
            capture = open_device(path)
        except OSError:
            continue
        if capture.read()[0]:
            return LiveStream(path, partial(open_device, path), capture, patience)
        capture.release()
    held = [holder for path in present for holder in _holders(Path(path))]
    who = f"; open in {', '.join(held)}" if held else ""
    raise AppError(
        f"{', '.join(present)}: present, but gives no picture (busy, no permission, or no "
        f"camera){who}; {CAMERA_ADVICE}",
        EXIT_SOURCE_UNAVAILABLE,
    )


def open_device(path: str) -> Capture:
    """A ``cv2.VideoCapture`` on a video device. OSError if it does not open."""
    cv2 = require_cv2()
    capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
    if not capture.isOpened():
        capture.release()
        raise OSError(f"{path} does not open")
    opened: Capture = capture
    return opened


class PiCamera:
    """A Raspberry Pi camera module through picamera2, as a capture."""

    def __init__(self, number: int) -> None:
        from picamera2 import Picamera2

        self._camera: Any = Picamera2(number)
        # What libcamera calls RGB888 lies in memory as blue, green, red.
        configuration = self._camera.create_video_configuration(
            main={"format": "RGB888"}, buffer_count=4, queue=False
        )
        self._camera.configure(configuration)
        self._camera.start()

    def read(self) -> tuple[bool, Image | None]:
        return True, self._camera.capture_array("main")

    def release(self) -> None:
        self._camera.stop()
        self._camera.close()


def open_pi_camera(number: int, patience: Patience | None = None) -> LiveStream:
    """Camera module ``number``. AppError with exit code 3 without picamera2 or without the camera."""
    name = f"pi:{number}"
    try:
        first = PiCamera(number)
    except ImportError:
        raise AppError(
            f"{name}: picamera2 is not installed; on Raspberry Pi OS: sudo apt install "
            "python3-picamera2, and make the virtual environment with --system-site-packages",
            EXIT_SOURCE_UNAVAILABLE,
        ) from None
    except Exception as error:  # picamera2 raises IndexError, RuntimeError and others
        raise AppError(
            f"{name}: the camera does not start: {error}; rpicam-hello --list-cameras shows what "
            "there is",
            EXIT_SOURCE_UNAVAILABLE,
        ) from None
    return LiveStream(name, lambda: PiCamera(number), first, patience)
