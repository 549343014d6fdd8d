"""Pictures that are kept: an annotated video, and what the model saw, sorted by its answer."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_app.errors import EXIT_BUG, EXIT_USAGE, AppError
from edge_app.preprocess import centre_crop
from edge_app.record import FrameRecord
from edge_app.sinks import Listener
from edge_app.sinks.matroska import MatroskaWriter
from edge_app.sources.base import Image, require_cv2

if TYPE_CHECKING:
    from edge_app.sources import Frame

JPEG_QUALITY = 85
SMALLEST_HEIGHT = 240
"""Smaller pictures are enlarged, so that what is written on them can be read."""
CROP_EVERY_S = 1.0


def annotated(record: FrameRecord, frame: Frame) -> Image:
    """BGR: the picture with the answer on top, and level, cause, temperature and battery below."""
    cv2 = require_cv2()
    image = frame.image if frame.order == "bgr" else frame.image[..., ::-1]
    height, width = image.shape[:2]
    if height < SMALLEST_HEIGHT:
        factor = -(-SMALLEST_HEIGHT // height)
        size = (width * factor, height * factor)
        image = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    image = np.ascontiguousarray(image).copy()
    height, width = image.shape[:2]
    scale = max(0.4, height / 720)
    answer = f"{record.label} {record.probability:.0%}"
    state = f"{record.bits} bits" + ("" if record.cause == "none" else f" ({record.cause})")
    if record.temperature_c is not None:
        state += f"  {record.temperature_c:.0f} C"
    if record.battery is not None:
        state += f"  {record.battery:.0%}"
    for line, bottom in ((answer, round(34 * scale)), (state, height - round(12 * scale))):
        place, font = (round(8 * scale), bottom), cv2.FONT_HERSHEY_SIMPLEX
        # A dark rim around light letters can be read on any picture.
        for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
            weight = max(1, round(thickness * scale))
            cv2.putText(image, line, place, font, scale, colour, weight, cv2.LINE_AA)
    drawn: Image = image
    return drawn


def encode(image: Image) -> bytes:
    """``image`` (BGR) as JPEG."""
    cv2 = require_cv2()
    good, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not good:
        raise AppError(f"a picture of shape {image.shape} cannot be encoded", EXIT_BUG)
    return bytes(data)


class VideoSink(Listener):
    """Annotated frames in a Matroska file with their real times; playable while it grows.

    AppError with exit code 2 if it cannot be opened, with 1 if the disk is full: what was written
    until then can be played.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.expanduser()
        if self._path.suffix.lower() != ".mkv":
            raise AppError(f"--save {path}: must end in .mkv (Matroska)", EXIT_USAGE)
        try:
            self._file = self._path.open("wb")
        except OSError as error:
            raise AppError(
                f"--save {path}: {error.strerror}; give a file in a directory that exists",
                EXIT_USAGE,
            ) from None
        self._writer: MatroskaWriter | None = None
        self._size = (0, 0)
        self._first = 0.0

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        image = annotated(record, frame)
        if self._writer is not None and image.shape[:2] != self._size:
            # Players take the size from the track: a camera may change it, the file may not.
            cv2 = require_cv2()
            image = cv2.resize(image, self._size[::-1], interpolation=cv2.INTER_AREA)
        try:
            if self._writer is None:
                self._size, self._first = image.shape[:2], record.wall_time
                height, width = self._size
                self._writer = MatroskaWriter(self._file, width, height, "edge-app")
            self._writer.add(encode(image), record.wall_time - self._first)
        except OSError as error:
            raise AppError(
                f"{self._path}: cannot write: {error.strerror}; the run ends here"
            ) from None

    def close(self) -> None:
        try:
            self._file.close()
        except OSError:
            pass  # the write that failed has been reported


class CropSink(Listener):
    """What the model saw, as ``DIRECTORY/<answer>/<time>-<number>.jpg``, at most one a second for
    each answer: a start for a training set of one's own."""

    def __init__(self, directory: Path, height: int, width: int) -> None:
        self._directory = directory.expanduser()
        self._shape = height, width
        self._last: dict[str, float] = {}
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AppError(
                f"--save-crops {directory}: {error.strerror}; give another directory", EXIT_USAGE
            ) from None

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        if record.wall_time - self._last.get(record.label, -CROP_EVERY_S) < CROP_EVERY_S:
            return
        self._last[record.label] = record.wall_time
        image = frame.image if frame.order == "bgr" else frame.image[..., ::-1]
        folder = self._directory / re.sub(r"[^\w-]+", "_", record.label)
        name = f"{record.wall_time:.3f}-{record.seq}.jpg"
        beside = folder / f".{name}"
        try:
            folder.mkdir(exist_ok=True)
            beside.write_bytes(encode(np.ascontiguousarray(centre_crop(image, *self._shape))))
            os.replace(beside, folder / name)
        except OSError as error:
            raise AppError(f"{folder}: cannot write: {error.strerror}; the run ends here") from None
