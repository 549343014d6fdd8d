"""What is known about one frame after it has been classified."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

SCHEMA = "edge-app/frame/1"


@dataclass(frozen=True)
class FrameRecord:
    """One classified frame. Times in seconds; ``None`` where nothing is known.

    ``bits``/``branches`` ran; ``ceiling_bits`` is what the governor allowed and ``cause`` the cap
    that bound it. ``age_s``: from the frame's capture to this record. ``truth`` is the true class's index among the model's labels. ``margin``: the
    highest probability less the second highest. ``escalated_from``: bits of a first run whose answer
    was too close to call, so that the frame was run again; ``agreed``: whether its class was the
    same. Both None where one run was enough.
    """

    wall_time: float
    mono_ns: int
    seq: int
    source: str
    bits: int
    branches: tuple[int, ...]
    ceiling_bits: int
    cause: str
    capture_s: float
    preprocess_s: float
    infer_s: float
    age_s: float
    temperature_c: float | None
    battery: float | None
    label: str
    class_index: int
    probability: float
    margin: float
    escalated_from: int | None
    agreed: bool | None
    truth: int | None
    governor_time_s: float

    @property
    def correct(self) -> bool | None:
        """Whether the class is the true one; None where the truth is not known."""
        return None if self.truth is None else self.class_index == self.truth

    def to_json(self) -> dict[str, Any]:
        """The object that ``assets/schema/frame.schema.json`` describes."""
        return {
            "schema": SCHEMA,
            "t": rfc3339(self.wall_time),
            "mono_ns": self.mono_ns,
            "seq": self.seq,
            "source": self.source,
            "bits": self.bits,
            "branches": list(self.branches),
            "ceiling_bits": self.ceiling_bits,
            "cause": self.cause,
            "latency_ms": {
                "capture": round(self.capture_s * 1e3, 4),
                "preprocess": round(self.preprocess_s * 1e3, 4),
                "infer": round(self.infer_s * 1e3, 4),
                "age": round(self.age_s * 1e3, 4),
            },
            "temperature_c": _rounded(self.temperature_c, 2),
            "battery": _rounded(self.battery, 4),
            "label": self.label,
            "class": self.class_index,
            "probability": round(self.probability, 6),
            "margin": round(self.margin, 6),
            "escalated_from": self.escalated_from,
            "agreed": self.agreed,
            "truth": self.truth,
            "correct": self.correct,
            "governor_time_s": round(self.governor_time_s, 3),
        }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def rfc3339(seconds: float) -> str:
    """``seconds`` since the epoch as UTC with milliseconds: 2025-01-31T12:00:00.000Z."""
    # Not by datetime, whose calls into its time zone leave memory behind (CPython's method cache).
    milliseconds = int(seconds * 1e3)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(milliseconds // 1000))}.{milliseconds % 1000:03d}Z"
