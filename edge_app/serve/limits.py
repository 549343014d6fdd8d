"""The temperatures that hold on this device."""

from __future__ import annotations

from edge_app.governor.caps import ThermalLimits, thermal_limits
from edge_app.policy.model import zone_matches
from edge_app.sensors import Zone, absent
from edge_app.serve.hub import Hub


def heat_limits(hub: Hub) -> ThermalLimits:
    """Of the zone that is nearest to its limit; of the policy alone where no zone counts."""
    policy = hub.about.policy().thermal
    zones = hub.sample.zones if hub.sample is not None else ()
    found: list[tuple[float, ThermalLimits]] = []
    for zone in zones:
        if zone.reading.value is None or not any(zone_matches(zone.name, p) for p in policy.zones):
            continue
        limits = thermal_limits(zone, policy)
        found.append((limits.control_c - zone.reading.value, limits))
    if found:
        return min(found, key=lambda entry: entry[0])[1]
    return thermal_limits(Zone("", absent("")), policy)
