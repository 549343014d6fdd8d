"""Motion JPEG as a plain stream of bytes: from stdin, or from a program that is run for it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import IO

import numpy as np

from edge_app.sources.base import EndOfSource, Finite, Frame, Image, require_cv2

START, END = b"\xff\xd8\xff", b"\xff\xd9"
CHUNK_BYTES = 1 << 16
LARGEST_BYTES = 32 << 20
"""A picture of more bytes than this is not one: its end was lost."""


class JpegSplitter:
    """Cuts a stream of bytes into JPEG images, whatever lies between them.

    A marker of JPEG (ITU-T T.81, annex B) cannot occur inside the entropy-coded data, so that the
    next end-of-image ends the picture; one inside an embedded thumbnail would cut it short, which
    cameras do not send in a stream.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The images that are complete now."""
        self._buffer += data
        images: list[bytes] = []
        while True:
            start = self._buffer.find(START)
            if start < 0:
                # Keep what may be the beginning of a start marker.
                del self._buffer[: max(0, len(self._buffer) - len(START) + 1)]
                self._searched = 0
                return images
            if start > 0:
                del self._buffer[:start]
                self._searched = 0
            end = self._buffer.find(END, max(len(START), self._searched))
            if end >= 0:
                images.append(bytes(self._buffer[: end + len(END)]))
                del self._buffer[: end + len(END)]
                self._searched = 0
                continue
            self._searched = max(0, len(self._buffer) - 1)
            if len(self._buffer) > LARGEST_BYTES:
                del self._buffer[: len(START)]
                self._searched = 0
                continue
            return images


def decode(data: bytes) -> Image | None:
    """The picture (BGR), or None if this is none."""
    cv2 = require_cv2()
    image: Image | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return image


class MjpegCapture:
    """Reads pictures from a stream of bytes, like a ``cv2.VideoCapture``; only the newest of those
    that have arrived together is decoded.

    ``receive``: up to so many bytes, as soon as there are some; none at the end. ``skipped``: the
    pictures that were left out because a newer one came with them.
    """

    def __init__(self, receive: Callable[[int], bytes], release: Callable[[], None]) -> None:
        self._receive = receive
        self._release = release
        self._splitter = JpegSplitter()
        self._ended = False
        self.skipped = 0

    def read(self) -> tuple[bool, Image | None]:
        while not self._ended:
            data = self._receive(CHUNK_BYTES)
            self._ended = not data
            images = self._splitter.feed(data)
            if images:
                self.skipped += len(images) - 1
                image = decode(images[-1])
                return image is not None, image
        return False, None

    def release(self) -> None:
        self._release()


class MjpegInput(Finite):
    """Every picture on stdin, in order, until it is closed.

    What comes through a pipe waits for its reader, so that nothing is left out.
    """

    name = "stdin"
    nominal_fps = None
    classes: tuple[str, ...] = ()

    def __init__(self, pipe: IO[bytes] | None = None) -> None:
        self._pipe = sys.stdin.buffer if pipe is None else pipe
        self._splitter = JpegSplitter()
        self._waiting: list[bytes] = []
        self.losses: Counter[str] = Counter()

    def read(self, timeout: float) -> Frame | None:
        started = time.monotonic()
        while not self._waiting:
            ready, _, _ = select.select([self._pipe], [], [], timeout)
            if not ready:
                return None
            data = os.read(self._pipe.fileno(), CHUNK_BYTES)
            if not data:
                raise EndOfSource
            self._waiting += self._splitter.feed(data)
            if time.monotonic() - started > timeout and not self._waiting:
                return None
        arrived = time.monotonic()
        image = decode(self._waiting.pop(0))
        if image is None:
            self.losses["capture"] += 1
            return None
        return Frame(image, "bgr", arrived, time.monotonic() - started)

    def close(self) -> None:
        pass


def run_gstreamer(pipeline: str) -> MjpegCapture:
    """What a GStreamer pipeline gives, through ``gst-launch-1.0``: the OpenCV of Python's package
    index is built without GStreamer, and JPEG is the one format that needs no negotiation.

    OSError if the program is not installed.
    """
    command = ["gst-launch-1.0", "--quiet", *pipeline.split()]
    command += "! videoconvert ! jpegenc quality=95 ! fdsink fd=1 sync=false".split()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    assert process.stdout is not None

    def release() -> None:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    return MjpegCapture(partial(os.read, process.stdout.fileno()), release)
