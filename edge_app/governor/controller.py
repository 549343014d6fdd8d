"""The governor: the lowest cap decides, at once when it falls, step by step when it rises."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_app.clock import Clock
from edge_app.errors import EXIT_USAGE, AppError
from edge_app.governor.backdown import Backdown
from edge_app.governor.battery import BatteryTracker
from edge_app.governor.caps import Cap, deadline_cap, failsafe_cap, thermal_cap
from edge_app.governor.energy import Profile
from edge_app.governor.ladder import build_ladder
from edge_app.governor.policy import Policy
from edge_app.governor.slowdown import Slowdown
from edge_app.governor.tracking import GAP_S, ThermalTracker, usable
from edge_app.sensors import Sample

LOAD_MAX_AGE_S = 10.0
IDLE_W = 2.0
ACTIVE_W = 3.0


@dataclass(frozen=True)
class Decision:
    """What one step of the governor came to.

    ``bits``: the level to run now, ``rung`` its place in the ladder (below full frame rate there
    are several rungs of the same bits). ``cause``: the cap that binds or, when the level has
    risen, the one that had held it down; ``none`` if nothing does. ``caps``: bits allowed by
    each cap. ``next_raise_s``: when the level rises if nothing changes; None if it does not.
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


class Governor:
    """Decides which level runs. One slow loop calls ``step`` about once a second; the frame path
    reads ``level``, ``frame_interval_s`` and ``paused`` and calls ``observe_latency``.

    ``levels``: bits of the model's levels. ``profile_s``: seconds that each takes on the
    undisturbed machine. AppError if the policy permits none of the levels.

    Until the first step the lowest rung holds. Plain attributes are all that the threads share:
    the frame path takes no lock.
    """

    def __init__(
        self,
        policy: Policy,
        levels: Sequence[int],
        profile_s: Mapping[int, float],
        clock: Clock,
    ) -> None:
        try:
            self.ladder = build_ladder(levels, policy)
        except ValueError as error:
            raise AppError(str(error), EXIT_USAGE) from None
        self.policy = policy
        self._clock = clock
        self._profile = {bits: seconds for bits, seconds in profile_s.items() if seconds > 0}
        self._limited = max(levels) > self.ladder.rungs[-1].bits
        self._slowdown = Slowdown()
        self._thermal = ThermalTracker(policy)
        self._battery = BatteryTracker(
            policy, self.ladder, Profile.from_seconds(self._profile, IDLE_W, ACTIVE_W)
        )
        top, full, period = self.ladder.top, self.ladder.full, policy.load.step_s
        self._throttle = Backdown(top, 0, period)
        self._load = Backdown(top, full, period)
        self._time: float | None = None
        self._rung = 0
        self._held_by = "none"
        self._changed_at = -math.inf
        self._allowed_since: float | None = None
        self._raised: dict[int, tuple[float, str]] = {}
        self._dwell: dict[int, float] = {}
        self._failed_at = -math.inf
        self._publish()

    # What the frame path uses ------------------------------------------------------------------

    @property
    def level(self) -> int:
        """Bits to run now."""
        return self._level

    @property
    def frame_interval_s(self) -> float:
        """Least seconds from one frame to the next; infinite while paused."""
        return self._interval

    @property
    def paused(self) -> bool:
        """Whether no frame may run: the device is about to shut itself down."""
        return self._paused

    def observe_latency(self, bits: int, seconds: float) -> None:
        """One frame at ``bits`` took ``seconds``."""
        profiled = self._profile.get(bits)
        if profiled is not None:
            self._slowdown.observe(seconds / profiled)

    # What the slow loop uses -------------------------------------------------------------------

    @property
    def slowdown(self) -> float:
        """How many times its profile a frame takes at present."""
        return self._slowdown.mean

    def obeys(self, zone: str) -> bool:
        """Whether the policy names this thermal zone."""
        return self._thermal.obeys(zone)

    def fail_safe(self, reason: str) -> Decision:
        """Go to the lowest rung because the governor cannot do its work any more."""
        time = self._clock.now()
        previous, self._rung, self._held_by = self._rung, 0, "failsafe"
        self._publish()
        bits = self.ladder.rungs[0].bits
        caps = {"failsafe": bits}
        return self._decision(time, previous, "failsafe", caps, reason, None)

    def step(self, sample: Sample) -> Decision:
        """Take in a sample and decide. No I/O."""
        first = self._time is None
        now, step_s = self._advance(sample.time)
        if step_s > GAP_S:
            # Back from a suspend: what had been allowed before does not count.
            self._allowed_since = None
            self._changed_at = now
        caps = self._caps(sample, now, step_s)
        binding = min(caps, key=lambda cap: cap.rung)
        previous = self._rung
        cause = self._move(binding, now, first)
        self._publish()
        in_bits = {cap.name: self.ladder.rungs[cap.rung].bits for cap in caps}
        wait = self._wait(binding.rung, now)
        # Of what has risen or will, the cap that had held it down has the most to say.
        why = next((cap.why for cap in caps if cap.name == cause), binding.why)
        if self._paused:
            why = f"{why}; paused"
        elif wait is not None:
            why = f"{why}; allows {in_bits[binding.name]} bits, next raise in {wait:.0f} s"
        return self._decision(now, self._rung if first else previous, cause, in_bits, why, wait)

    def _advance(self, time: float) -> tuple[float, float]:
        """A time that never goes backwards, and how far it went."""
        if self._time is None:
            self._time = time if math.isfinite(time) else 0.0
            return self._time, 0.0
        now = max(self._time, time) if math.isfinite(time) else self._time
        step_s, self._time = now - self._time, now
        return now, step_s

    def _caps(self, sample: Sample, now: float, step_s: float) -> list[Cap]:
        """All caps; of two that allow the same the first is named."""
        policy, ladder, current = self.policy, self.ladder, self._rung
        self._thermal.update(sample, now, step_s)
        sight = self._thermal.sight
        heat = thermal_cap(self._thermal.heat, current, ladder, policy)
        throttle = self._throttle.update(
            usable(sample.throttled, now, LOAD_MAX_AGE_S) == 1.0, current, now
        )
        if throttle < heat.rung:
            heat = Cap("thermal", throttle, "the kernel throttles the CPU")
        load = self._load.update(self._contention(sample, now), current, now)
        return [
            heat,
            self._battery.update(sample, now, current),
            deadline_cap(
                self._slowdown.mean,
                self._slowdown.deviation,
                self._profile,
                current,
                ladder,
                policy.frame.deadline_ms * 1e-3,
            ),
            Cap("load", load, "other programs want the CPU"),
            failsafe_cap(sight.state, sight.detail, current, ladder, policy),
            Cap("policy", ladder.top, f"policy {policy.name} allows no more"),
        ]

    def _contention(self, sample: Sample, now: float) -> bool:
        policy, others = self.policy.load, usable(sample.other_load, now, LOAD_MAX_AGE_S)
        if not policy.yield_to_others or others is None:
            return False
        pressure = usable(sample.cpu_pressure, now, LOAD_MAX_AGE_S)
        if pressure is None:
            return others * 100.0 > policy.other_load_alone
        waiting = pressure > policy.psi_cpu_some_avg10
        return waiting and others * 100.0 > policy.other_load

    def _move(self, binding: Cap, now: float, first: bool) -> str:
        """Change the rung as far as it may change now, and name the cause."""
        target, top = binding.rung, self.ladder.top
        cause = reached = binding.name if target < top else ("policy" if self._limited else "none")
        if first:
            self._rung, self._held_by, self._changed_at = target, cause, now
        elif target < self._rung:
            self._note_lowering(binding, now)
            self._rung, self._held_by, self._changed_at = target, cause, now
            self._allowed_since = None
        elif target == self._rung:
            self._held_by = cause
            self._allowed_since = None
        else:
            if self._allowed_since is None:
                self._allowed_since = now
            cause = self._held_by
            if self._wait(target, now) == 0.0:
                self._rung += 1
                self._changed_at = self._allowed_since = now
                self._raised[self._rung] = now, cause
                if self._rung == target:
                    self._held_by = reached
        return cause

    def _note_lowering(self, binding: Cap, now: float) -> None:
        """A rung that one cap gave and soon took back waits longer the next time."""
        stability = self.policy.stability
        for rung in range(binding.rung + 1, self._rung + 1):
            raised_at, given_by = self._raised.pop(rung, (-math.inf, ""))
            if given_by == binding.name and now - raised_at < stability.revert_s:
                longer = 2.0 * self._dwell.get(rung, stability.raise_dwell_s)
                self._dwell[rung] = min(longer, stability.raise_backoff_max_s)
                self._failed_at = now

    def _wait(self, target: int, now: float) -> float | None:
        """Seconds until the next rung may be climbed; None if ``target`` is not above."""
        if target <= self._rung or self._allowed_since is None:
            return None
        stability = self.policy.stability
        if self._dwell and now - self._failed_at >= stability.forget_s:
            self._dwell.clear()
        dwell = self._dwell.get(self._rung + 1, stability.raise_dwell_s)
        return max(0.0, dwell - (now - max(self._changed_at, self._allowed_since)))

    def _publish(self) -> None:
        rung = self.ladder.rungs[self._rung]
        self._level = rung.bits
        self._paused = self._thermal.paused
        self._interval = math.inf if self._paused else rung.interval_s

    def _decision(
        self,
        time: float,
        previous: int,
        cause: str,
        caps: dict[str, int],
        why: str,
        wait: float | None,
    ) -> Decision:
        heat = self._thermal.heat if self._thermal.fresh else None
        return Decision(
            time=time,
            bits=self._level,
            rung=self._rung,
            changed=self._rung != previous,
            previous_bits=self.ladder.rungs[previous].bits,
            cause=cause,
            caps=caps,
            why=why,
            next_raise_s=wait,
            temperature_c=None if heat is None else round(heat.temperature_c, 2),
            battery_charge=None if self._battery.charge is None else round(self._battery.charge, 4),
        )
