"""Test pictures that need no camera and no file: colour bars that move, and noise."""

from __future__ import annotations

import time

import numpy as np

from edge_app.sources.base import Finite, Frame, Image

WIDTH, HEIGHT = 640, 480
FPS = 30.0
# White, yellow, cyan, green, magenta, red, blue, black: from light to dark (green weighs most).
HIGH, LOW = 235, 16
BARS = [[HIGH if bits & mask else LOW for mask in (2, 4, 1)] for bits in range(7, -1, -1)]


class TestPictures(Finite):
    """640x480 pictures, 30 a second, without end: ``bars`` or ``noise``, the same in every run."""

    __test__ = False  # a source and no test, whatever its name says to pytest
    nominal_fps = FPS
    classes: tuple[str, ...] = ()

    def __init__(self, kind: str) -> None:
        self.name = f"test:{kind}"
        self._noise = np.random.default_rng(0) if kind == "noise" else None
        columns = np.arange(WIDTH) * len(BARS) // WIDTH
        row = np.array(BARS, dtype=np.uint8)[columns]
        self._bars: Image = np.broadcast_to(row, (HEIGHT, WIDTH, 3)).copy()
        self._next = 0

    def read(self, timeout: float) -> Frame | None:
        started = time.monotonic()
        if self._noise is not None:
            image = self._noise.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        else:
            image = np.roll(self._bars, 4 * self._next, axis=1)
        self._next += 1
        return Frame(image, "rgb", started, time.monotonic() - started)

    def close(self) -> None:
        pass
