"""Writes Motion JPEG into a Matroska file that can be played at every moment, also after a kill.

The container's elements: RFC 9559 (Matroska) on RFC 8794 (EBML). The segment has an unknown size and
there is no index, so that nothing must be filled in at the end; every picture has its own time, as a
camera with a governor has no constant frame rate.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

CLUSTER_MS = 2000
"""A picture's time is 16 bits from its cluster's, which would allow 32 s; shorter ones seek better."""

EBML, SEGMENT, CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
INFO, TRACKS, TRACK, VIDEO = 0x1549A966, 0x1654AE6B, 0xAE, 0xE0
SIMPLE_BLOCK, TIMESTAMP = 0xA3, 0xE7
UNKNOWN_SIZE = b"\x01\xff\xff\xff\xff\xff\xff\xff"
KEYFRAME = 0x80


def element(identifier: int, content: bytes) -> bytes:
    """One EBML element; its size is written in eight bytes."""
    name = identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")
    return name + struct.pack(">Q", len(content) | 1 << 56) + content


def number(identifier: int, value: int) -> bytes:
    return element(identifier, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def text(identifier: int, value: str) -> bytes:
    return element(identifier, value.encode())


class MatroskaWriter:
    """One video track of JPEG pictures. Nothing is written but by ``add``; OSError passes through."""

    def __init__(self, file: BinaryIO, width: int, height: int, application: str) -> None:
        self._file = file
        self._cluster_ms: int | None = None
        self._last_ms = -1
        header = element(
            EBML,
            number(0x4286, 1)  # EBMLVersion
            + number(0x42F7, 1)  # EBMLReadVersion
            + number(0x42F2, 4)  # EBMLMaxIDLength
            + number(0x42F3, 8)  # EBMLMaxSizeLength
            + text(0x4282, "matroska")  # DocType
            + number(0x4287, 4)  # DocTypeVersion
            + number(0x4285, 2),  # DocTypeReadVersion
        )
        info = element(
            INFO,
            number(0x2AD7B1, 1_000_000)  # TimestampScale: milliseconds
            + text(0x4D80, application)  # MuxingApp
            + text(0x5741, application),  # WritingApp
        )
        track = element(
            TRACK,
            number(0xD7, 1)  # TrackNumber
            + number(0x73C5, 1)  # TrackUID
            + number(0x83, 1)  # TrackType: video
            + number(0x9C, 0)  # FlagLacing
            + text(0x86, "V_MJPEG")  # CodecID
            + element(VIDEO, number(0xB0, width) + number(0xBA, height)),
        )
        segment = SEGMENT.to_bytes(4, "big") + UNKNOWN_SIZE
        file.write(header + segment + info + element(TRACKS, track))

    def add(self, jpeg: bytes, seconds: float) -> None:
        """A picture shown ``seconds`` after the first; times that do not grow are made to."""
        milliseconds = max(round(seconds * 1000), self._last_ms + 1)
        self._last_ms = milliseconds
        if self._cluster_ms is None or milliseconds - self._cluster_ms >= CLUSTER_MS:
            self._cluster_ms = milliseconds
            cluster = CLUSTER.to_bytes(4, "big") + UNKNOWN_SIZE
            self._file.write(cluster + number(TIMESTAMP, milliseconds))
        head = struct.pack(">BhB", 0x81, milliseconds - self._cluster_ms, KEYFRAME)
        self._file.write(element(SIMPLE_BLOCK, head + jpeg))
        self._file.flush()
