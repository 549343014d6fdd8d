"""The live picture: encoded once for everybody, in a thread, and only when somebody asks."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_app.record import FrameRecord
from edge_app.serve.hub import Hub

if TYPE_CHECKING:
    from edge_app.sources import Frame

EVERY_S = 0.1
"""No more pictures a second than ten: a person looks at them, and each costs CPU time."""
WIDEST, HIGHEST = 640, 480
SMALLEST = 192
"""Pixels of the longer side: smaller pictures are enlarged, pixel by pixel."""
QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """A JPEG of one frame and what was found in it. ``number`` counts encoded pictures."""

    number: int
    record: FrameRecord
    frame_at: float
    jpeg: bytes

    def about(self, now: float) -> str:
        """Its answer and its age at ``now`` as JSON in ASCII, for a header."""
        record = self.record
        return json.dumps(
            {
                "seq": record.seq,
                "label": record.label,
                "probability": round(record.probability, 4),
                "bits": record.bits,
                "age_s": round(self.age_s(now), 3),
            }
        )

    def age_s(self, now: float) -> float:
        """Seconds since the frame was captured."""
        return self.record.age_s + max(0.0, now - self.frame_at)


class Pictures:
    """Gives the newest picture. Belongs to the server's event loop."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._newest: Picture | None = None
        self._at = 0.0
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="picture")

    async def newest(self) -> Picture | None:
        """The newest picture, at most ``EVERY_S`` older than the newest frame; None before the
        first frame."""
        async with self._lock:
            hub, newest = self._hub, self._newest
            record, frame, at = hub.record, hub.frame_newest, hub.frame_at
            if record is None or frame is None or at is None:
                return None
            if newest is not None and newest.record.seq == record.seq:
                return newest
            now = hub.now()
            if newest is not None and now - self._at < EVERY_S:
                return newest
            self._at = now
            number = 1 if newest is None else newest.number + 1
            loop = asyncio.get_running_loop()
            jpeg = await loop.run_in_executor(self._thread, encode, frame)
            self._newest = Picture(number, record, at, jpeg)
            return self._newest

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def encode(frame: Frame) -> bytes:
    """JPEG of a frame, made to fit the page."""
    from edge_app.sources.base import require_cv2

    cv2: Any = require_cv2()
    image = frame.image if frame.order == "bgr" else frame.image[..., ::-1]
    height, width = image.shape[:2]
    factor = min(WIDEST / width, HIGHEST / height)
    if factor < 1.0:
        size = max(1, round(width * factor)), max(1, round(height * factor))
        image = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
    elif max(height, width) < SMALLEST:
        larger = -(-SMALLEST // max(height, width))
        image = image.repeat(larger, axis=0).repeat(larger, axis=1)
    good, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(image), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    return bytes(data) if good else b""
