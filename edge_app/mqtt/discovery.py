"""Home Assistant's MQTT discovery: https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery."""

from __future__ import annotations

from typing import Any

# key of the state -> name, unit, device class, state class
SENSORS: dict[str, tuple[str, str | None, str | None, str | None]] = {
    "label": ("Answer", None, None, None),
    "bits": ("Precision", "bit", None, "measurement"),
    "cause": ("Held by", None, None, None),
    "temperature_c": ("Temperature", "°C", "temperature", "measurement"),
    "battery_percent": ("Battery", "%", "battery", "measurement"),
    "fps": ("Frame rate", "fps", None, "measurement"),
}


def discovery(prefix: str, topic: str, device: str, name: str) -> dict[str, dict[str, Any]]:
    """Retained messages by topic: one for each sensor. ``topic``: the device's own."""
    found = {}
    for key, (label, unit, kind, measured) in SENSORS.items():
        config: dict[str, Any] = {
            "name": label,
            "unique_id": f"{device}-{key}",
            "state_topic": f"{topic}/state",
            "value_template": f"{{{{ value_json.{key} }}}}",
            "availability_topic": f"{topic}/availability",
            "device": {"identifiers": [device], "name": name, "manufacturer": "edge-app"},
        }
        optional = {"unit_of_measurement": unit, "device_class": kind, "state_class": measured}
        config |= {option: value for option, value in optional.items() if value is not None}
        found[f"{prefix}/sensor/{device}/{key}/config"] = config
    return found
