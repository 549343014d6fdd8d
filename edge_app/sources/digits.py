"""The test stream: real handwritten digits that no training saw, with their labels."""

from __future__ import annotations

import io
import time
from importlib import resources

import numpy as np

from edge_app.sources.base import Finite, Frame

LABELS = tuple("0123456789")


class DigitsStream(Finite):
    """The 360 held-out digits of the shipped split, in order, again and again at ``fps``.

    A stand-in for a camera: it never ends, and it knows the truth, so that accuracy for each
    level is measured while the program runs. Attribution: ``assets/ATTRIBUTION.md``.
    """

    name = "test:digits"
    classes = LABELS

    def __init__(self, fps: float = 30.0) -> None:
        asset = resources.files("edge_app") / "assets" / "digits-heldout.npz"
        with np.load(io.BytesIO(asset.read_bytes()), allow_pickle=False) as arrays:
            gray, self._labels = arrays["gray"], arrays["labels"]
        self._images = np.repeat(gray[..., None], 3, axis=-1)
        self._next = 0
        self._fps = fps

    @property
    def nominal_fps(self) -> float | None:
        return self._fps

    def __len__(self) -> int:
        return len(self._images)

    def read(self, timeout: float) -> Frame | None:
        started = time.monotonic()
        index = self._next % len(self._images)
        self._next += 1
        return Frame(
            image=self._images[index],
            order="rgb",
            captured=started,
            capture_s=time.monotonic() - started,
            truth=LABELS[self._labels[index]],
        )

    def close(self) -> None:
        pass
