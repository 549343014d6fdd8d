"""What the governor remembers of heat and whether it can still see.

Takes only readings that are OK and fresh; everything else counts as silence.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from edge_app.governor.caps import Heat, ThermalLimits, thermal_limits
from edge_app.governor.policy import Policy
from edge_app.sensors import Quality, Reading, Sample, Zone
from edge_app.sensors.validators import implausible_temperature

SMOOTHING_S = 3.0
SLOPE_WINDOW_S = 20.0
SLOPE_SAMPLES = 24
MAX_SLOPE_C_PER_S = 0.5
INTEGRAL_DECAY_S = 900.0
PAUSE_HYSTERESIS_C = 5.0
GAP_S = 60.0
"""After a longer gap between samples (suspend) what was smoothed before means nothing."""


def usable(reading: Reading, now: float, max_age_s: float) -> float | None:
    """The value if it can be relied on, else None."""
    value = reading.value
    if reading.quality is not Quality.OK or value is None or not math.isfinite(value):
        return None
    return value if now - reading.time <= max_age_s else None


@dataclass
class ZoneTrack:
    """One zone: median of three against spikes, then a low-pass, then a slope."""

    limits: ThermalLimits
    last_ok: float
    healthy_since: float
    temperature_c: float = 0.0
    median_c: float = 0.0
    slope: float = 0.0
    problem: str = ""
    stuck: bool = False
    lost: bool = False
    _raw: deque[float] = field(default_factory=lambda: deque(maxlen=3))
    _past: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=SLOPE_SAMPLES))

    def update(self, value: float, now: float) -> None:
        """Take in a sound value."""
        step = now - self.last_ok
        if step > GAP_S:
            self._raw.clear()
            self._past.clear()
        self._raw.append(value)
        self.median_c = sorted(self._raw)[len(self._raw) // 2]
        if self._past:
            share = 1.0 - math.exp(-step / SMOOTHING_S)
            self.temperature_c += (self.median_c - self.temperature_c) * share
        else:
            self.temperature_c = self.median_c
        self._past.append((now, self.temperature_c))
        while now - self._past[0][0] > SLOPE_WINDOW_S:
            self._past.popleft()
        self.slope = _slope(self._past)
        self.last_ok = now

    def forecast_c(self, ahead_s: float) -> float:
        """Temperature in ``ahead_s`` if it goes on rising; a fall is not counted on."""
        return self.temperature_c + min(max(self.slope, 0.0), MAX_SLOPE_C_PER_S) * ahead_s


def _slope(points: Iterable[tuple[float, float]]) -> float:
    """Least-squares slope of (time, value)."""
    times, values = zip(*points, strict=True)
    middle = sum(times) / len(times)
    spread = sum((time - middle) ** 2 for time in times)
    if spread <= 0:
        return 0.0
    moment = sum((time - middle) * value for time, value in zip(times, values, strict=True))
    return float(moment / spread)


@dataclass(frozen=True)
class Sight:
    """Whether the heat can be seen: ``seeing``, ``never``, ``waiting`` or ``lost``."""

    state: str
    detail: str = ""


class ThermalTracker:
    """All thermal zones that the policy names."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._tracks: dict[str, ZoneTrack] = {}
        self._wanted: dict[str, bool] = {}
        self._integral = 0.0
        self.paused = False
        self.fresh = False
        """Whether some zone gave a temperature in the newest sample."""
        self.heat: Heat | None = None
        self.sight = Sight("never")

    def update(self, sample: Sample, now: float, step_s: float) -> None:
        """Take in a sample. ``step_s``: time since the one before."""
        policy = self._policy
        present = set()
        for zone in sample.zones:
            if self.obeys(zone.name) and zone.reading.quality is not Quality.ABSENT:
                present.add(zone.name)
                self._take(zone, now)
        for name, track in self._tracks.items():
            if name not in present:
                track.problem = "gone"
        self.sight = self._look(now)
        known = self._known()
        self.fresh = any(not track.problem for track in known.values())
        if not self.fresh:
            # The last known heat keeps its hold until the fail-safe has taken over.
            return
        self.heat = self._hottest(known)
        trips = [track.median_c - track.limits.pause_c for track in known.values()]
        self.paused = max(trips) >= (-PAUSE_HYSTERESIS_C if self.paused else 0.0)
        if step_s > GAP_S:
            self._integral = 0.0
        headroom = self.heat.headroom
        bits = policy.thermal.sustainable_bits
        if headroom < 0:
            gain = 2.0 * bits / policy.thermal.integral_s
            self._integral = max(-bits, self._integral + gain * headroom * min(step_s, GAP_S))
        else:
            self._integral *= math.exp(-step_s / INTEGRAL_DECAY_S)

    def obeys(self, name: str) -> bool:
        """Whether the policy names this zone."""
        wanted = self._wanted.get(name)
        if wanted is None:
            kind = name.partition("#")[0].lower()
            patterns = self._policy.thermal.zones
            wanted = any(fnmatchcase(kind, pattern.lower()) for pattern in patterns)
            self._wanted[name] = wanted
        return wanted

    def _take(self, zone: Zone, now: float) -> None:
        value = usable(zone.reading, now, self._policy.thermal.max_age_s)
        if value is not None and implausible_temperature(value):
            value = None  # whatever the source says of it: one absurd number spoils all sums
        track = self._tracks.get(zone.name)
        if track is None:
            limits = thermal_limits(zone, self._policy.thermal)
            track = ZoneTrack(limits, last_ok=-math.inf, healthy_since=now)
            self._tracks[zone.name] = track
        if value is None:
            reading = zone.reading
            track.stuck = reading.quality is Quality.STUCK
            quality = Quality.STALE if reading.quality is Quality.OK else reading.quality
            shown = "" if reading.value is None else f" ({reading.value:g} °C)"
            track.problem = f"{quality.value}{shown}"
            return
        if track.problem:
            track.problem, track.stuck, track.healthy_since = "", False, now
        track.update(value, now)

    def _look(self, now: float) -> Sight:
        """Judge every zone; the worst decides.

        A zone that has never worked is left out of account, and so is one that is stuck, as
        long as another one works: firmware often has a constant one. A zone that did work may
        be the one that is hot, so that its loss counts even if others go on.
        """
        failsafe = self._policy.failsafe
        if not self._tracks:
            return Sight("never")
        works = any(not track.problem for track in self._tracks.values())
        worst = Sight("seeing")
        for name, track in self._tracks.items():
            never_worked = track.last_ok == -math.inf
            if track.problem:
                if works and (never_worked or track.stuck):
                    continue
                silent = now - (track.healthy_since if never_worked else track.last_ok)
                if silent <= self._policy.thermal.max_age_s and not track.lost:
                    continue  # a hiccup: some drivers are busy now and then
                track.lost = track.lost or silent >= failsafe.after_s
                state = "lost" if track.lost else "waiting"
                sight = Sight(state, f"{name} {track.problem} for {silent:.0f} s")
            elif track.lost:
                sound = now - track.healthy_since
                if sound >= failsafe.recover_s:
                    track.lost = False
                    continue
                sight = Sight("lost", f"{name} is back for {sound:.0f} s, not trusted yet")
            else:
                continue
            if worst.state != "lost":
                worst = sight
        return worst

    def _known(self) -> dict[str, ZoneTrack]:
        """The zones whose newest temperature counts: one that has been lost keeps its hold, one
        that turned out to be stuck never told anything."""
        return {
            name: track
            for name, track in self._tracks.items()
            if track.last_ok != -math.inf and not track.stuck
        }

    def _hottest(self, known: dict[str, ZoneTrack]) -> Heat:
        """The zone with the least headroom."""
        ahead = self._policy.thermal.forecast_s
        critical = any(track.median_c >= track.limits.critical_c for track in known.values())
        heats = [
            Heat(
                name,
                track.temperature_c,
                track.forecast_c(ahead),
                track.limits,
                self._integral,
                critical,
            )
            for name, track in known.items()
        ]
        return min(heats, key=lambda heat: heat.headroom)
