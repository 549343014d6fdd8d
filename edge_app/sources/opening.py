"""From what the user wrote to an open source."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Final

from edge_app.errors import EXIT_SOURCE_UNAVAILABLE, AppError
from edge_app.sources.base import Source

TEST_DIGITS: Final = "test:digits"
DEFAULT_CAMERA: Final = "default"
URL_SCHEMES = ("http://", "https://", "rtsp://", "rtsps://")


def open_source(uri: str) -> Source:
    """Open ``uri``.

    ``test:digits``; ``default`` (the first camera); a camera's index or ``/dev/...``; a video
    file, an image or a directory of images; an http, https, rtsp or rtsps address. AppError with
    exit code 3 if it cannot be opened.
    """
    if uri == TEST_DIGITS:
        from edge_app.sources.digits import DigitsStream

        return DigitsStream()
    if uri.startswith("test:"):
        raise AppError(f"no test stream '{uri}'; there is {TEST_DIGITS}", EXIT_SOURCE_UNAVAILABLE)
    if uri.startswith(URL_SCHEMES):
        return _open_url(uri)
    if "://" in uri:
        scheme = uri.split("://")[0]
        raise AppError(
            f"{uri}: cannot open '{scheme}://' addresses; use one of {', '.join(URL_SCHEMES)}",
            EXIT_SOURCE_UNAVAILABLE,
        )
    from edge_app.sources.live import open_camera

    path = Path(uri).expanduser()
    if uri == DEFAULT_CAMERA:
        return open_camera(None)
    if uri.isdecimal():
        return open_camera(f"/dev/video{int(uri)}")
    if uri.startswith("/dev/"):
        return open_camera(uri)
    return _open_path(path)


def _open_path(path: Path) -> Source:
    from edge_app.sources import files

    try:
        if path.is_dir():
            return files.open_directory(path)
        present = path.is_file()
    except OSError as error:
        raise AppError(f"{path}: {error.strerror}", EXIT_SOURCE_UNAVAILABLE) from None
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
    return files.VideoFile(str(path))


def _open_url(url: str) -> Source:
    from edge_app.sources.files import VideoFile
    from edge_app.sources.live import LiveStream, open_url_capture

    name = public_name(url)
    capture = open_url_capture(url, name)
    # CAP_PROP_FRAME_COUNT (7): a recording on a server has a length and is read like a file.
    if capture.get(7) > 0:
        return VideoFile(name, capture)
    return LiveStream(name, capture)


def public_name(url: str) -> str:
    """``url`` without user and password, for messages and records that others may read."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    _, at, host = authority.rpartition("@")
    return f"{scheme}://{'***@' if at else ''}{host}{slash}{path}"
