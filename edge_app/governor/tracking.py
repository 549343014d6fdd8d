"""What the governor remembers of heat and whether it can still see.

Takes only readings that are OK and fresh; everything else counts as silence.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from edge_app.governor.caps import Heat, ThermalLimits, thermal_limits
from edge_app.governor.decision import Event
from edge_app.governor.state import age, finite, since, table, text
from edge_app.policy.model import Policy
from edge_app.sensors import Quality, Reading, Sample, Zone, absent
from edge_app.sensors.validators import Smoothed, StuckDetector, implausible_temperature

SMOOTHING_S = 3.0
SLOPE_WINDOW_S = 20.0
SLOPE_SAMPLES = 24
MAX_SLOPE_C_PER_S = 0.5
INTEGRAL_DECAY_S = 600.0
"""At ``on_c``; more slowly nearer to ``control_c``: what a device can sustain changes over hours,
and a memory that fades faster learns it again and again by getting too hot."""
TREND_S = 60.0
LOOKAHEAD_S = 120.0
"""The memory looks further ahead than the cap does, by how it has gone for a minute: a case warms up
for ten, too slowly for the forecast, and what is learned only above ``control_c`` is learned late."""
MOST_AHEAD_C = 3.0
"""A faster rise is the chip's own after a step up, and soon over."""
PAUSE_HYSTERESIS_C = 5.0
COOL_MARGIN_C = 5.0
"""Below ``on_c`` by this is cool beyond doubt: some firmware throttles from 60 °C on."""
GAP_S = 60.0
"""After a longer gap between samples (suspend) what was smoothed before means nothing."""


def usable(reading: Reading, now: float, max_age_s: float) -> float | None:
    """The value if it can be relied on, else None: whatever the source says of it, it must be a
    finite number that was read at a known time not long ago."""
    value, read_at = finite(reading.value), finite(reading.time)
    if reading.quality is not Quality.OK or value is None or read_at is None:
        return None
    return value if now - read_at <= max_age_s else None


@dataclass
class ZoneTrack:
    """One zone: median of three against spikes, then a low-pass, then a slope.

    ``zone``: its trip points. ``last_ok``: when it last gave a sound value, -inf if it never did.
    ``healthy_since``: when it last began to. ``problem``: what is wrong with its newest reading.
    ``lost``: it has been silent for so long that it must first prove itself.
    """

    zone: Zone
    limits: ThermalLimits
    healthy_since: float
    last_ok: float = -math.inf
    temperature_c: float = 0.0
    median_c: float = 0.0
    slope: float = 0.0
    problem: str = ""
    stuck: bool = False
    lost: bool = False
    still: StuckDetector = field(default_factory=StuckDetector)
    _raw: deque[float] = field(default_factory=lambda: deque(maxlen=3))
    _slow: Smoothed = field(default_factory=lambda: Smoothed(TREND_S))
    _past: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=SLOPE_SAMPLES))

    def update(self, value: float, read_at: float, now: float) -> None:
        """Take in a sound value."""
        step = now - self._past[-1][0] if self._past else math.inf
        if step > GAP_S:
            self._raw.clear()
            self._past.clear()
            self._slow = Smoothed(TREND_S)
        self._raw.append(value)
        self.median_c = sorted(self._raw)[len(self._raw) // 2]
        if self._past:
            share = 1.0 - math.exp(-step / SMOOTHING_S)
            self.temperature_c += (self.median_c - self.temperature_c) * share
        else:
            self.temperature_c = self.median_c
        self._slow.update(self.temperature_c, now)
        self._past.append((now, self.temperature_c))
        while now - self._past[0][0] > SLOPE_WINDOW_S:
            self._past.popleft()
        self.slope = _slope(self._past)
        self.last_ok = min(read_at, now)

    @property
    def trips(self) -> tuple[float | None, float | None]:
        """The device's own passive and critical temperature."""
        return self.zone.passive_c, self.zone.critical_c

    @property
    def known(self) -> bool:
        """Whether there is a temperature that tells something: a zone that has been lost keeps its
        hold, one that turned out to be stuck never told anything."""
        return bool(self._past) and not self.stuck

    def forecast_c(self, ahead_s: float) -> float:
        """Temperature in ``ahead_s`` if it goes on rising; a fall is not counted on."""
        return self.temperature_c + min(max(self.slope, 0.0), MAX_SLOPE_C_PER_S) * ahead_s

    def prospect_c(self) -> float:
        """Temperature in ``LOOKAHEAD_S`` if it goes on rising as in the last minute."""
        # A low-pass lags behind a steady rise by its time constant.
        rise = self.temperature_c - (self._slow.value or self.temperature_c)
        return self.temperature_c + min(max(0.0, rise) * (LOOKAHEAD_S / TREND_S), MOST_AHEAD_C)


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
    """Whether the heat can be seen: ``seeing``, ``never`` (until now), ``waiting`` or ``lost``."""

    state: str
    detail: str = ""


_WORSE = ("seeing", "waiting", "lost")


class ThermalTracker:
    """All thermal zones that the policy names.

    ``paused``: some zone is where the device would soon shut itself down. ``fresh``: some zone gave
    a temperature in the newest sample. ``heat``: of the zone nearest to its limit, None until there
    is one. ``events``: what happened to zones since somebody emptied the list.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._tracks: dict[str, ZoneTrack] = {}
        self._wanted: dict[str, bool] = {}
        self._integral = 0.0
        self.paused = False
        self.fresh = False
        self.heat: Heat | None = None
        self.sight = Sight("never")
        self.events: list[Event] = []

    def update(self, sample: Sample, now: float, step_s: float, effort: float | None) -> None:
        """Take in a sample. ``step_s``: time since the one before. ``effort``: smoothed share 0..1
        of the ladder's highest cost that has been running; a thermometer should feel it."""
        present = set()
        for zone in sample.zones:
            if self.obeys(zone.name) and zone.reading.quality is not Quality.ABSENT:
                present.add(zone.name)
                self._take(zone, now, effort)
        for name, track in self._tracks.items():
            if name not in present:
                track.problem = "gone"
            if step_s > GAP_S:
                # Nobody has watched it being sound.
                track.healthy_since = now
        self.sight = self._look(now)
        known = self._known()
        self.fresh = any(not track.problem for track in known.values())
        if not self.fresh:
            # The last known heat keeps its hold until the fail-safe has taken over.
            return
        self.heat = self._hottest(known)
        self._pause(known)
        prospect_c = max(self.heat.forecast_c, known[self.heat.zone].prospect_c())
        self._integrate(self.heat.room(prospect_c), step_s)

    def temperatures(self) -> dict[str, float]:
        """Degrees Celsius of all zones that gave a sound value in the newest sample."""
        return {name: track.median_c for name, track in self._tracks.items() if not track.problem}

    def cool(self) -> bool:
        """Whether all zones that work are clearly below where heat begins to count."""
        working = [track for track in self._tracks.values() if not track.problem]
        return bool(working) and all(
            track.median_c < track.limits.on_c - COOL_MARGIN_C for track in working
        )

    def obeys(self, name: str) -> bool:
        """Whether the policy names this zone."""
        wanted = self._wanted.get(name)
        if wanted is None:
            kind = name.partition("#")[0].lower()
            patterns = self._policy.thermal.zones
            wanted = any(fnmatchcase(kind, pattern.lower()) for pattern in patterns)
            self._wanted[name] = wanted
        return wanted

    def replace_policy(self, policy: Policy) -> None:
        """Go on under another policy; what is known of zones that it still names stays."""
        self._policy = policy
        self._wanted = {}
        self._tracks = {name: track for name, track in self._tracks.items() if self.obeys(name)}
        for track in self._tracks.values():
            track.limits = thermal_limits(track.zone, policy.thermal)
        self._integral = max(-policy.thermal.sustainable_bits, self._integral)
        known = self._known()
        self.heat = self._hottest(known) if known else None
        self.paused = self.paused and bool(known)

    def _take(self, zone: Zone, now: float, effort: float | None) -> None:
        value = usable(zone.reading, now, self._policy.thermal.max_age_s)
        if value is not None and implausible_temperature(value):
            value = None  # whatever the source says of it: one absurd number spoils all sums
        track = self._tracks.get(zone.name)
        if track is None:
            limits = thermal_limits(zone, self._policy.thermal)
            track = self._tracks[zone.name] = ZoneTrack(zone, limits, healthy_since=now)
        elif (zone.passive_c, zone.critical_c) not in (track.trips, (None, None)):
            track.zone, track.limits = zone, thermal_limits(zone, self._policy.thermal)
        stuck = value is not None and track.still.stuck(value, now, effort)
        if value is None or stuck:
            quality = Quality.STUCK if stuck else zone.reading.quality
            track.stuck = quality is Quality.STUCK
            track.problem = _problem(quality, zone.reading)
            return
        if track.problem:
            track.problem, track.stuck, track.healthy_since = "", False, now
        track.update(value, zone.reading.time, now)

    def _look(self, now: float) -> Sight:
        """Judge every zone; the worst decides.

        A zone that has never worked is left out of account, and so is one that is stuck, as
        long as another one works: firmware often has a constant one. A zone that did work may
        be the one that is hot, so that its loss counts even if others go on.
        """
        if not self._tracks:
            return Sight("never")
        works = any(not track.problem for track in self._tracks.values())
        sights = [
            self._judge(name, track, now)
            for name, track in self._tracks.items()
            if not (works and track.problem and (track.last_ok == -math.inf or track.stuck))
        ]
        worst = max(sights, key=lambda sight: _WORSE.index(sight.state))
        if worst.state != "lost" and all(
            track.last_ok == -math.inf for track in self._tracks.values()
        ):
            # Nothing has been seen yet: no reason to begin as if all were well.
            names = ", ".join(self._tracks)
            return Sight("never", f"no temperature from {names} yet")
        return worst

    def _judge(self, name: str, track: ZoneTrack, now: float) -> Sight:
        failsafe = self._policy.failsafe
        if not track.problem:
            if not track.lost:
                return Sight("seeing")
            sound = now - track.healthy_since
            if sound < failsafe.recover_s:
                return Sight("lost", f"{name} is back for {sound:.0f} s, not trusted yet")
            track.lost = False
            self.events.append(Event("sensor_back", f"{name} has been sound for {sound:.0f} s"))
            return Sight("seeing")
        silent = now - (track.healthy_since if track.last_ok == -math.inf else track.last_ok)
        if silent <= self._policy.thermal.max_age_s and not track.lost:
            return Sight("seeing")  # a hiccup: some drivers are busy now and then
        detail = f"{name} {track.problem} for {silent:.0f} s"
        if silent >= failsafe.after_s and not track.lost:
            track.lost = True
            self.events.append(Event("sensor_lost", detail))
        return Sight("lost" if track.lost else "waiting", detail)

    def _known(self) -> dict[str, ZoneTrack]:
        return {name: track for name, track in self._tracks.items() if track.known}

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

    def _pause(self, known: dict[str, ZoneTrack]) -> None:
        above = max(track.median_c - track.limits.pause_c for track in known.values())
        paused = above >= (-PAUSE_HYSTERESIS_C if self.paused else 0.0)
        if paused != self.paused:
            self.paused = paused
            degrees = f"{abs(above):.1f} °C {'above' if above >= 0 else 'below'}"
            kind = "paused" if paused else "resumed"
            self.events.append(Event(kind, f"{degrees} the temperature at which inference pauses"))

    def _integrate(self, headroom: float, step_s: float) -> None:
        """The controller's memory of excess: it fills while it is or becomes too hot, and fades
        otherwise."""
        bits = self._policy.thermal.sustainable_bits
        if step_s > GAP_S:
            self._integral = 0.0
        if headroom < 0:
            gain = 2.0 * bits / self._policy.thermal.integral_s
            self._integral = max(-bits, self._integral + gain * headroom * min(step_s, GAP_S))
        else:
            self._integral *= math.exp(-step_s * headroom / INTEGRAL_DECAY_S)

    def state(self, now: float) -> list[dict[str, Any]]:
        """What a restart must not forget: which zones have worked, and which of them are lost."""
        return [
            {"zone": name, "silent_s": age(track.last_ok, now), "lost": track.lost}
            for name, track in sorted(self._tracks.items())
            if track.last_ok != -math.inf
        ]

    def restore(self, state: object, now: float) -> None:
        """Take over what ``state`` tells of zones that the policy names."""
        for row in state if isinstance(state, list) else []:
            entry = table(row)
            name, last_ok = text(entry.get("zone")), since(entry.get("silent_s"), now)
            if not name or last_ok == -math.inf or not self.obeys(name):
                continue
            zone = Zone(name, absent(name))
            limits = thermal_limits(zone, self._policy.thermal)
            self._tracks[name] = ZoneTrack(
                zone, limits, now, last_ok, problem="gone", lost=entry.get("lost") is True
            )


def _problem(quality: Quality, reading: Reading) -> str:
    """A few words on a reading that cannot be used."""
    quality = Quality.STALE if quality is Quality.OK else quality
    value = finite(reading.value)
    return quality.value if value is None else f"{quality.value} ({value:g} °C)"
