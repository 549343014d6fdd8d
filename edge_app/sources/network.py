"""Network streams and GStreamer pipelines."""

from __future__ import annotations

import base64
import http.client
import shutil
import urllib.parse
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any

from edge_app.errors import EXIT_SOURCE_UNAVAILABLE, AppError
from edge_app.sources.base import Source, require_cv2
from edge_app.sources.live import Capture, LiveStream, Patience
from edge_app.sources.mjpeg import MjpegCapture, run_gstreamer

OPEN_TIMEOUT_S = 8.0
FRAME_COUNT = 7
"""OpenCV's CAP_PROP_FRAME_COUNT."""


def open_url(url: str, patience: Patience | None = None) -> Source:
    """An http, https, rtsp or rtsps address.

    A recording on a server has a length and is read like a file. AppError with exit code 3 if it
    cannot be opened; the name and the messages leave the password out.
    """
    from edge_app.sources.files import VideoFile

    name = public_name(url)
    if url.startswith("http"):
        pictures = connect_mjpeg(url)
        if pictures is not None:
            return LiveStream(name, partial(_again, connect_mjpeg, url), pictures, patience)
    capture = connect(url)
    if capture is None:
        raise AppError(
            f"{name}: cannot be opened; check that the address answers and streams video "
            "(user and password go before the host: rtsp://user:password@host/path)",
            EXIT_SOURCE_UNAVAILABLE,
        )
    if capture.get(FRAME_COUNT) > 0:
        return VideoFile(name, capture)
    return LiveStream(name, partial(_again, connect, url), capture, patience)


def _again(connect: Callable[[str], Capture | None], url: str) -> Capture:
    capture = connect(url)
    if capture is None:
        raise OSError("it does not answer")
    return capture


def connect_mjpeg(url: str) -> Capture | None:
    """Pictures of an address that answers with ``multipart/x-mixed-replace``, as cameras do; None
    if it answers otherwise or not at all.

    Without FFmpeg: it takes a second to guess what it is given, and would go on with the first
    picture's size when the camera changes it.
    """
    parts = urllib.parse.urlsplit(url)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    request = urllib.request.Request(address, headers={"User-Agent": "edge-app"})
    if parts.username is not None:
        user = urllib.parse.unquote(parts.username)
        secret = f"{user}:{urllib.parse.unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(secret.encode()).decode()}")
    try:
        answer = urllib.request.urlopen(request, timeout=OPEN_TIMEOUT_S)
    except (OSError, ValueError, http.client.HTTPException):
        return None
    if not answer.headers.get_content_type().startswith("multipart/"):
        answer.close()
        return None
    return MjpegCapture(answer.read1, answer.close)


def connect(url: str) -> Any | None:
    """An opened ``cv2.VideoCapture``, or None after eight seconds without an answer."""
    cv2 = require_cv2()
    limit = int(OPEN_TIMEOUT_S * 1000)
    capture = cv2.VideoCapture(
        url,
        cv2.CAP_FFMPEG,
        [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit],
    )
    if capture.isOpened():
        return capture
    capture.release()
    return None


def open_pipeline(description: str, patience: Patience | None = None) -> LiveStream:
    """A GStreamer pipeline up to, and without, its sink: ``v4l2src device=/dev/video0``.

    AppError with exit code 3 if gst-launch-1.0 is missing; a pipeline that is wrong gives no frame,
    which the stream reports.
    """
    if shutil.which("gst-launch-1.0") is None:
        raise AppError(
            "gst: needs gst-launch-1.0; on Debian: sudo apt install gstreamer1.0-tools "
            "gstreamer1.0-plugins-good",
            EXIT_SOURCE_UNAVAILABLE,
        )
    if not description.strip():
        raise AppError(
            "gst: needs a pipeline without its sink, for example gst:videotestsrc",
            EXIT_SOURCE_UNAVAILABLE,
        )
    return LiveStream(f"gst:{description}", lambda: run_gstreamer(description), patience=patience)


def public_name(url: str) -> str:
    """``url`` without user and password, for messages and records that others may read."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    _, at, host = authority.rpartition("@")
    return f"{scheme}://{'***@' if at else ''}{host}{slash}{path}"
