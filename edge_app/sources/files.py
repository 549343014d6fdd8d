"""Finite sources: a video file, one image, a directory of images. Every frame, in order."""

from __future__ import annotations

import glob
import time
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from edge_app.errors import EXIT_SOURCE_LOST, EXIT_SOURCE_UNAVAILABLE, AppError
from edge_app.sources.base import EndOfSource, Finite, Frame, Image, require_cv2

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

USUAL_FPS, MOST_FPS = 25.0, 1000.0
"""For files that say nothing, or nonsense, about their frame rate."""


def is_image(path: Path) -> bool:
    """By its suffix: opening every file of a large tree would take too long."""
    return path.suffix.lower() in IMAGE_SUFFIXES


class VideoFile(Finite):
    """A file that OpenCV's FFmpeg decodes, from its first frame to its last.

    ``realtime``: at the speed at which it was recorded, leaving out what there is no time for;
    otherwise every frame as fast as they are read.
    """

    nominal_fps = None
    classes: tuple[str, ...] = ()

    def __init__(self, name: str, capture: Any | None = None, realtime: bool = False) -> None:
        """``name``: the file's path, unless ``capture`` is a ``cv2.VideoCapture`` opened on it."""
        self.name = name
        cv2 = require_cv2()
        if capture is None:
            capture = cv2.VideoCapture(name)
        if not capture.isOpened():
            raise AppError(
                f"{name}: neither an image nor a video that can be decoded; "
                "try another file, or convert it to H.264 in MP4",
                EXIT_SOURCE_UNAVAILABLE,
            )
        self._capture = capture
        self._frames = 0
        self.losses: Counter[str] = Counter()
        self._period_s = 0.0
        if realtime:
            fps = capture.get(cv2.CAP_PROP_FPS)
            self._period_s = 1.0 / fps if 0 < fps <= MOST_FPS else 1.0 / USUAL_FPS
        self._started: float | None = None

    def read(self, timeout: float) -> Frame | None:
        if self._period_s and not self._keep_time(timeout):
            return None
        started = time.monotonic()
        good, image = self._capture.read()
        if not good:
            self._end()
        self._frames += 1
        ended = time.monotonic()
        return Frame(image, "bgr", ended, ended - started)

    def _keep_time(self, timeout: float) -> bool:
        """Skip what is past; whether the next frame is due within ``timeout``."""
        now = time.monotonic()
        if self._started is None:
            self._started = now
        due = int((now - self._started) / self._period_s)
        while self._frames < due:
            if not self._capture.grab():
                self._end()
            self._frames += 1
            self.losses["stale"] += 1
        wait_s = self._started + self._frames * self._period_s - now
        time.sleep(min(max(wait_s, 0.0), timeout))
        return wait_s <= timeout

    def _end(self) -> NoReturn:
        if self._frames == 0:
            raise AppError(
                f"{self.name}: opened, but its first frame cannot be decoded; "
                "the file is damaged or empty",
                EXIT_SOURCE_UNAVAILABLE,
            )
        raise EndOfSource

    def close(self) -> None:
        self._capture.release()


class ImageFiles(Finite):
    """Images from a list of files; the name of a class folder, where there is one, is the truth."""

    nominal_fps = None

    def __init__(self, name: str, files: list[Path], truths: list[str | None]) -> None:
        self.name = name
        self.classes = tuple(sorted({truth for truth in truths if truth is not None}))
        self._items = list(zip(files, truths, strict=True))
        self._next = 0
        self._cv2 = require_cv2()

    def __len__(self) -> int:
        return len(self._items)

    def read(self, timeout: float) -> Frame | None:
        if self._next == len(self._items):
            raise EndOfSource
        path, truth = self._items[self._next]
        self._next += 1
        started = time.monotonic()
        image = self._decode(path)
        ended = time.monotonic()
        return Frame(image, "bgr", ended, ended - started, truth)

    def _decode(self, path: Path) -> Image:
        # From memory: imread takes no undecodable file names and cannot say why it failed.
        first = self._next == 1
        try:
            data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        except OSError as error:
            raise AppError(
                f"{path}: {error.strerror}",
                EXIT_SOURCE_UNAVAILABLE if first else EXIT_SOURCE_LOST,
            ) from None
        image: Image | None = (
            self._cv2.imdecode(data, self._cv2.IMREAD_COLOR) if data.size else None
        )
        if image is None:
            raise AppError(
                f"{path}: not an image that can be decoded; remove or replace it",
                EXIT_SOURCE_UNAVAILABLE if first else EXIT_SOURCE_LOST,
            )
        return image

    def close(self) -> None:
        pass


def open_directory(folder: Path) -> ImageFiles:
    """All images below ``folder``, sorted by path; hidden files and directories are left out.

    With class folders (``folder/<class>/<image>``) the classes take turns, so that a stretch of
    frames at one level sees every class and not one class only. AppError with exit code 3 if
    there are none.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if is_image(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not files:
        raise AppError(
            f"{folder}: no images in this directory (looked for "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}); give another directory",
            EXIT_SOURCE_UNAVAILABLE,
        )
    places: dict[str | None, int] = {}
    ordered: list[tuple[int, int, Path, str | None]] = []
    for position, path in enumerate(files):
        inside = path.relative_to(folder).parts
        truth = inside[-2] if len(inside) > 1 else None
        turn = places.get(truth, 0)
        places[truth] = turn + 1
        ordered.append((turn, position, path, truth))
    ordered.sort(key=lambda item: item[:2])
    return ImageFiles(str(folder), [i[2] for i in ordered], [i[3] for i in ordered])


def open_pattern(pattern: str) -> ImageFiles:
    """All images that match ``pattern`` (``*``, ``?``, ``[...]``, and ``**`` for any depth), sorted.

    AppError with exit code 3 if there are none.
    """
    files = sorted(path for path in map(Path, glob.glob(pattern, recursive=True)) if is_image(path))
    if not files:
        raise AppError(
            f"{pattern}: no image matches; write the pattern in quotes so that edge-app sees it",
            EXIT_SOURCE_UNAVAILABLE,
        )
    return ImageFiles(pattern, files, [None] * len(files))


def open_list(path: Path) -> ImageFiles:
    """The images that a text file names, one a line, relative to it; empty lines and those that
    begin with ``#`` are skipped. AppError with exit code 3 names the first line that is no file."""
    files = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AppError(f"{path}: cannot be read: {error}", EXIT_SOURCE_UNAVAILABLE) from None
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        file = path.parent / Path(entry).expanduser()
        if not file.is_file():
            raise AppError(f"{path}:{number}: no such file: {entry}", EXIT_SOURCE_UNAVAILABLE)
        files.append(file)
    if not files:
        raise AppError(f"{path}: names no image", EXIT_SOURCE_UNAVAILABLE)
    return ImageFiles(str(path), files, [None] * len(files))


def open_image(path: Path) -> ImageFiles:
    """One image as a source of one frame."""
    return ImageFiles(str(path), [path], [None])
