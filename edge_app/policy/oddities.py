"""What is legal in a policy and odd all the same, on this device or now."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from edge_app.governor.caps import thermal_limits
from edge_app.policy.layers import Resolved
from edge_app.policy.locator import Path as KeyPath
from edge_app.policy.model import Policy, zone_matches
from edge_app.policy.problems import Problem
from edge_app.policy.toml import dotted
from edge_app.sensors import Sample, Zone

SHIPPED_LEVELS: Final = (2, 4, 6, 8)


def warnings(resolved: Resolved, sample: Sample | None, now: datetime) -> list[str]:
    """As ``oddities``, as text: ``file:line:column: warning: key: what; what to do``."""
    return [str(problem) for problem in oddities(resolved, sample, now)]


def oddities(resolved: Resolved, sample: Sample | None, now: datetime) -> list[Problem]:
    """What probably does not do what was meant. ``sample``: of the device's sensors; None: what
    depends on them is left out. ``now``: local time."""
    found = _numbers(resolved) + _levels(resolved) + _end(resolved, now)
    if sample is not None:
        found += _zones(resolved, sample.zones) + _trips(resolved, sample.zones)
        found += _battery(resolved, sample)
    return sorted(found, key=_rank)


def _rank(problem: Problem) -> tuple[str, int, int]:
    place = problem.position
    return problem.place, place.line if place else 0, place.column if place else 0


def _warning(resolved: Resolved, path: str | KeyPath, what: str) -> Problem:
    place: KeyPath = tuple(path.split(".")) if isinstance(path, str) else path
    return resolved.problem(place, what, "warning")


def _chosen(resolved: Resolved, name: str) -> bool:
    """Whether someone has given this value, and not a preset or the defaults."""
    layer = resolved.layer_of(name)
    return layer is not None and layer.kind != "preset"


def _numbers(resolved: Resolved) -> list[Problem]:
    """Percentages that look like fractions."""
    policy = resolved.policy
    shares: list[tuple[KeyPath, float]] = [
        (("battery", "reserve"), policy.battery.reserve),
        (("load", "psi_cpu_some_avg10"), policy.load.psi_cpu_some_avg10),
        (("load", "other_load"), policy.load.other_load),
        (("load", "other_load_alone"), policy.load.other_load_alone),
    ]
    shares += [
        (("battery", "tiers", index, "below"), tier.below)
        for index, tier in enumerate(policy.battery.tiers)
    ]
    return [
        _warning(
            resolved,
            path,
            f"{share:g} means {share:g} %, not {share * 100:g} %; write {share * 100:g} if you "
            "meant that",
        )
        for path, share in shares
        if 0 < share < 1
    ]


def _levels(resolved: Resolved) -> list[Problem]:
    policy = resolved.policy
    levels, start = policy.levels, policy.confidence.start_bits
    found = []
    for path, bits in _bits(policy):
        if bits not in SHIPPED_LEVELS:
            what = f"no shipped model has {bits} bits; {bits - 1} run unless yours has"
            found.append(_warning(resolved, path, what))
    if start > levels.max_bits and _chosen(resolved, "confidence.start_bits"):
        what = f"{start} is above levels.max_bits = {levels.max_bits}: frames start at that"
        found.append(_warning(resolved, "confidence.start_bits", f"{what}; lower it or raise that"))
    escalates = policy.confidence.escalate_below > 0 and policy.confidence.max_per_s > 0
    if start < levels.max_bits and not escalates:
        name = "max_per_s" if policy.confidence.escalate_below > 0 else "escalate_below"
        what = f"0: no frame is run again, all stay at {start} bits; raise it, or start_bits"
        found.append(_warning(resolved, f"confidence.{name}", what))
    lower = [
        f"{dotted(path)} = {bits}"
        for path, bits in _bits(policy)
        if path[0] != "levels" and bits < levels.min_bits
    ]
    if lower:
        what = f"{levels.min_bits} runs also where less is asked for: {', '.join(lower)}"
        found.append(_warning(resolved, "levels.min_bits", f"{what}; lower it, or raise those"))
    if policy.stability.raise_dwell_s < policy.stability.lower_dwell_s:
        what = (
            f"{policy.stability.raise_dwell_s:g} s is less than stability.lower_dwell_s: levels "
            "rise faster than they fall; give more"
        )
        found.append(_warning(resolved, "stability.raise_dwell_s", what))
    return found


def _bits(policy: Policy) -> list[tuple[KeyPath, int]]:
    """All keys that name a level."""
    found: list[tuple[KeyPath, int]] = [
        (("levels", "min_bits"), policy.levels.min_bits),
        (("levels", "max_bits"), policy.levels.max_bits),
        (("confidence", "start_bits"), policy.confidence.start_bits),
        (("failsafe", "no_thermal_sensor_bits"), policy.failsafe.no_thermal_sensor_bits),
        (("failsafe", "lost_thermal_sensor_bits"), policy.failsafe.lost_thermal_sensor_bits),
    ]
    return found + [
        (("battery", "tiers", index, "max_bits"), tier.max_bits)
        for index, tier in enumerate(policy.battery.tiers)
    ]


def _end(resolved: Resolved, now: datetime) -> list[Problem]:
    until = resolved.policy.battery.until
    if until is None or now.time() < until:
        return []
    what = (
        f"{until:%H:%M} is past today (it is {now:%H:%M}): it means tomorrow; nothing to do if "
        "you mean that"
    )
    return [_warning(resolved, "battery.until", what)]


def _zones(resolved: Resolved, zones: tuple[Zone, ...]) -> list[Problem]:
    policy = resolved.policy
    here = ", ".join(dict.fromkeys(zone.name for zone in zones))
    if not zones:
        bits = policy.failsafe.no_thermal_sensor_bits
        what = (
            "`run` will refuse to start: this device has no thermal zone; set it to false"
            if policy.thermal.required
            else f"this device has no thermal zone: at most {bits} bits run; to change that, "
            "set failsafe.no_thermal_sensor_bits"
        )
        key = "thermal.required" if policy.thermal.required else "thermal.zones"
        return [_warning(resolved, key, what)]
    idle = [
        index
        for index, pattern in enumerate(policy.thermal.zones)
        if not any(zone_matches(zone.name, pattern) for zone in zones)
    ]
    if len(idle) == len(policy.thermal.zones):
        what = f"matches nothing on this device; name one of its zones: {here}"
        return [_warning(resolved, "thermal.zones", what)]
    if not _chosen(resolved, "thermal.zones"):
        # The shipped patterns are those of many devices.
        return []
    return [
        _warning(
            resolved,
            ("thermal", "zones", index),
            f'"{policy.thermal.zones[index]}" matches nothing on this device; remove it, or name '
            f"one of its zones: {here}",
        )
        for index in idle
    ]


def _trips(resolved: Resolved, zones: tuple[Zone, ...]) -> list[Problem]:
    """Limits above those of the device, if someone has asked for them."""
    thermal = resolved.policy.thermal
    obeyed = [
        zone for zone in zones if any(zone_matches(zone.name, pattern) for pattern in thermal.zones)
    ]
    passive = [(zone.passive_c, zone) for zone in obeyed if zone.passive_c is not None]
    critical = [(zone.critical_c, zone) for zone in obeyed if zone.critical_c is not None]
    found = []
    for name, value, trips, kind, then in (
        ("control_c", thermal.control_c, passive, "passive", "the kernel throttles before"),
        ("critical_c", thermal.critical_c, critical, "critical", "the device is off before"),
        ("pause_c", thermal.pause_c, critical, "critical", "the device is off before"),
    ):
        lowest = min(trips, key=lambda trip: trip[0], default=None)
        if lowest is None or value <= lowest[0] or not _chosen(resolved, f"thermal.{name}"):
            continue
        limit, zone = lowest
        if thermal.use_trips:
            counts = getattr(thermal_limits(zone, thermal), name)
            then = f"{counts:g} counts (thermal.use_trips)"
        what = f"{value:g} is above this device's {kind} trip {limit:g} of {zone.name}: {then}"
        found.append(_warning(resolved, f"thermal.{name}", f"{what}; give less than {limit:g}"))
    return found


def _battery(resolved: Resolved, sample: Sample) -> list[Problem]:
    battery, policy = sample.battery, resolved.policy.battery
    if not battery.present:
        given = [
            name
            for name in ("until", "reserve", "capacity_wh", "tiers", "hysteresis", "on_ac")
            if _chosen(resolved, f"battery.{name}")
        ]
        found = [
            _warning(
                resolved, f"battery.{name}", "this device has no battery: does nothing; remove it"
            )
            for name in given
        ]
        if policy.required:
            what = "`run` will refuse to start: this device has no battery; set it to false"
            found.append(_warning(resolved, "battery.required", what))
        return found
    unknown = battery.full_j is None and policy.capacity_wh is None
    if policy.until is not None and unknown:
        what = (
            "this battery does not say what it holds, so that power is only seen by its charge "
            "falling; give battery.capacity_wh"
        )
        return [_warning(resolved, "battery.until", what)]
    return []
