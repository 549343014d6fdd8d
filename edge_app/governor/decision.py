"""What one step of the governor came to, and what happened in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Event:
    """Something worth telling once. ``kind`` is a stable word (``sensor_lost``), ``text`` one line
    for people."""

    kind: str
    text: str


@dataclass(frozen=True)
class Decision:
    """What one step of the governor came to. Times in seconds of the samples' clock.

    ``bits``: the level to run now, ``fps`` the frame rate to keep to (0: as the source gives
    frames), ``rung`` their place in the ladder; below full frame rate there are several rungs of
    the same bits. ``changed``: whether bits or rate differ from those before, ``previous_bits``.
    ``cause``: the cap that binds or, while and when the level rises, the one that had held it down;
    ``none`` if nothing does. ``caps``: bits allowed by each cap, ``reasons``: why it allows so
    many. ``next_raise_s``: when the next rung is climbed if nothing changes; None if none will be.

    ``temperature_c`` and ``forecast_c``: of the zone nearest to its limit, None while blind.
    ``slowdown``: how many times its profile a frame takes. ``battery_end_s``: seconds until the
    reserve is reached at this rung; ``until_s``: seconds it is meant to last. ``distrusted``:
    thermometers that are readable and not believed.
    """

    time: float
    bits: int
    rung: int
    changed: bool
    previous_bits: int
    cause: str
    caps: dict[str, int]
    why: str
    next_raise_s: float | None
    temperature_c: float | None
    battery_charge: float | None
    fps: float = 0.0
    paused: bool = False
    forecast_c: float | None = None
    slowdown: float = 1.0
    battery_end_s: float | None = None
    until_s: float | None = None
    distrusted: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For a log of decisions: always the same keys in the same order, numbers rounded to what
        they mean, so that equal decisions are equal bytes."""
        return {
            "t": round(self.time, 3),
            "bits": self.bits,
            "fps": round(self.fps, 3),
            "rung": self.rung,
            "changed": self.changed,
            "previous_bits": self.previous_bits,
            "paused": self.paused,
            "cause": self.cause,
            "caps": dict(self.caps),
            "reasons": dict(self.reasons),
            "why": self.why,
            "next_raise_s": _rounded(self.next_raise_s, 1),
            "temperature_c": _rounded(self.temperature_c, 2),
            "forecast_c": _rounded(self.forecast_c, 2),
            "slowdown": round(self.slowdown, 3),
            "battery": _rounded(self.battery_charge, 4),
            "battery_end_s": _rounded(self.battery_end_s, 0),
            "until_s": _rounded(self.until_s, 0),
            "distrusted": list(self.distrusted),
            "events": [{"kind": event.kind, "text": event.text} for event in self.events],
        }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


class LevelControl(Protocol):
    """What the frame path needs of whoever decides: the governor, or another beside it."""

    @property
    def level(self) -> int: ...
    @property
    def first_level(self) -> int: ...
    @property
    def frame_interval_s(self) -> float: ...
    @property
    def paused(self) -> bool: ...
    def observe_latency(self, bits: int, seconds: float) -> None: ...
    def escalate(self, bits: int, margin: float) -> int | None: ...
