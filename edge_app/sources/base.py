"""What every source offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


class EndOfSource(Exception):
    """There will be no more frames, and that is no error: the file or directory is done."""


@dataclass(frozen=True)
class Frame:
    """One picture.

    ``image``: uint8 ``[H,W,3]`` of any size, channels in the order that ``order`` says.
    ``captured``: ``time.monotonic()`` seconds at which it came from the device or file.
    ``capture_s``: seconds that grabbing and decoding took.
    ``truth``: name of the true class where the source knows it.
    """

    image: Image
    order: Literal["rgb", "bgr"]
    captured: float
    capture_s: float
    truth: str | None = None


@dataclass(frozen=True)
class SourceStatus:
    """``state``: ``up``, ``stalled`` (no frame for too long) or ``reconnecting``. ``reconnects``: how
    often it has been opened again so far. ``text``: for people, empty while it is up."""

    state: Literal["up", "stalled", "reconnecting"] = "up"
    reconnects: int = 0
    text: str = ""


class Source(Protocol):
    """A stream of frames, read from one thread."""

    @property
    def name(self) -> str:
        """What was opened, for messages and records."""
        ...

    @property
    def live(self) -> bool:
        """True if the world goes on while nobody reads, so that only the newest frame counts."""
        ...

    @property
    def nominal_fps(self) -> float | None:
        """The rate at which frames are meant to be shown; None: as fast as they are read."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names that ``Frame.truth`` can take; empty where the source knows no labels."""
        ...

    @property
    def losses(self) -> Mapping[str, int]:
        """Frames that were lost so far, by reason: ``capture`` (could not be read or decoded),
        ``stale`` (a newer one came before anybody asked)."""
        ...

    @property
    def status(self) -> SourceStatus:
        """Whether frames come."""
        ...

    def read(self, timeout: float) -> Frame | None:
        """The next frame, or None if none came within ``timeout`` seconds.

        Raises EndOfSource after the last frame, and AppError with exit code 4 when a source that
        should go on is lost for good.
        """
        ...

    def close(self) -> None:
        """Release the device or file. Safe to call twice."""
        ...


class Finite:
    """What sources have in common whose frames wait until somebody asks for them."""

    live = False
    losses: Mapping[str, int] = {}
    status = SourceStatus()


def require_cv2() -> Any:
    """OpenCV, quiet: its warnings would land between our own lines on stderr."""
    import os

    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    return cv2
