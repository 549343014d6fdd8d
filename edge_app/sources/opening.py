"""From what the user wrote to an open source."""

from __future__ import annotations

import difflib
import glob
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_app.errors import EXIT_SOURCE_UNAVAILABLE, EXIT_USAGE, AppError
from edge_app.sources.base import Source

if TYPE_CHECKING:
    from edge_app.sources.live import Patience

TEST_DIGITS: Final = "test:digits"
TEST_STREAMS: Final = (TEST_DIGITS, "test:bars", "test:noise")
DEFAULT_CAMERA: Final = "default"
STDIN: Final = "-"
LIST_SUFFIX: Final = ".txt"
URL_SCHEMES = ("http://", "https://", "rtsp://", "rtsps://")


def open_source(uri: str, patience: Patience | None = None, realtime: bool = False) -> Source:
    """Open ``uri``.

    ``test:digits``, ``test:bars``, ``test:noise``; ``default`` (the first camera); a camera's index
    or ``/dev/...``; ``pi:N``; a video file, an image, a directory of images, a pattern (``*.jpg``)
    or a ``.txt`` file that lists images; ``-`` (Motion JPEG on stdin); an http, https, rtsp or rtsps
    address; ``gst:`` and a GStreamer pipeline. ``patience``: how long a live source is waited for; ``realtime``: play a video file at
    its own speed.
    AppError with exit code 3 if it cannot be opened, 2 if it is empty.
    """
    if not uri:
        raise AppError(
            "--camera is empty; leave it out for test:digits, or name a source", EXIT_USAGE
        )
    if uri.startswith("test:"):
        return _open_test(uri)
    if uri == STDIN:
        from edge_app.sources.mjpeg import MjpegInput

        return MjpegInput()
    if uri.startswith("gst:"):
        from edge_app.sources.network import open_pipeline

        return open_pipeline(uri.removeprefix("gst:"), patience)
    if uri.startswith(URL_SCHEMES):
        from edge_app.sources.network import open_url

        return open_url(uri, patience)
    if "://" in uri:
        scheme = uri.split("://")[0]
        raise AppError(
            f"{uri}: cannot open '{scheme}://' addresses; use one of {', '.join(URL_SCHEMES)}",
            EXIT_SOURCE_UNAVAILABLE,
        )
    from edge_app.sources.cameras import open_camera, open_pi_camera

    if uri == DEFAULT_CAMERA:
        return open_camera(None, patience)
    if uri.isdecimal():
        return open_camera(f"/dev/video{int(uri)}", patience)
    if uri.startswith("/dev/"):
        return open_camera(uri, patience)
    if uri.startswith("pi:"):
        number = uri.removeprefix("pi:") or "0"
        if not number.isdecimal():
            raise AppError(f"{uri}: write pi:0 or pi:1", EXIT_SOURCE_UNAVAILABLE)
        return open_pi_camera(int(number), patience)
    return _open_path(Path(uri).expanduser(), realtime)


def _open_test(uri: str) -> Source:
    if uri not in TEST_STREAMS:
        raise AppError(
            f"no test stream '{uri}'; there are {', '.join(TEST_STREAMS)}", EXIT_SOURCE_UNAVAILABLE
        )
    if uri == TEST_DIGITS:
        from edge_app.sources.digits import DigitsStream

        return DigitsStream()
    from edge_app.sources.synthetic import TestPictures

    return TestPictures(uri.removeprefix("test:"))


def _open_path(path: Path, realtime: bool) -> Source:
    from edge_app.sources import files

    try:
        if path.is_dir():
            return files.open_directory(path)
        present = path.is_file()
    except OSError as error:
        raise AppError(f"{path}: {error.strerror}", EXIT_SOURCE_UNAVAILABLE) from None
    if not present and glob.has_magic(str(path)):
        return files.open_pattern(str(path))
    if not present:
        near: list[str] = []
        if path.parent.is_dir():
            names = [entry.name for entry in path.parent.iterdir()]
            near = difflib.get_close_matches(path.name, names, n=1)
        hint = f"did you mean {path.parent / near[0]}?" if near else "check the path"
        raise AppError(
            f"{path}: no such file, directory or camera; {hint}", EXIT_SOURCE_UNAVAILABLE
        )
    if files.is_image(path):
        return files.open_image(path)
    if path.suffix.lower() == LIST_SUFFIX:
        return files.open_list(path)
    return files.VideoFile(str(path), realtime=realtime)
