"""A sample's readings one below the other, with a name and a unit each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_app.sensors import Quality, Reading, Sample


@dataclass(frozen=True)
class Row:
    """One sensor. ``key``: a stable name for metrics; ``text``: its value for people."""

    key: str
    what: str
    reading: Reading
    text: str

    @property
    def absent(self) -> bool:
        return self.reading.quality is Quality.ABSENT


def rows(sample: Sample | None) -> list[Row]:
    """Every sensor that a sample can have; those that this device has not are among them."""
    return [] if sample is None else list(_rows(sample))


def _rows(sample: Sample) -> Iterator[Row]:
    # Two zones of one type keep two names: a label's values must be unique.
    seen: dict[str, int] = {}
    for zone in sample.zones:
        seen[zone.name] = number = seen.get(zone.name, 0) + 1
        key = zone.name if number == 1 else f"{zone.name}#{number}"
        yield Row(
            key, f"temperature of {zone.name}", zone.reading, _text(zone.reading, "{:.1f} °C")
        )
    battery = sample.battery
    yield Row("battery", "battery charge", battery.charge, _text(battery.charge, "{:.0f} %", 100.0))
    yield Row(
        "battery_power", "power out of the battery", battery.power, _text(battery.power, "{:.2f} W")
    )
    yield Row("power", "power", sample.power, _text(sample.power, "{:.2f} W"))
    yield Row("throttled", "throttled by the kernel", sample.throttled, _yes(sample.throttled))
    yield Row(
        "under_voltage", "power supply too weak", sample.under_voltage, _yes(sample.under_voltage)
    )
    yield Row(
        "other_load",
        "load of other programs",
        sample.other_load,
        _text(sample.other_load, "{:.0f} %", 100.0),
    )
    yield Row(
        "cpu_pressure",
        "waiting for a CPU",
        sample.cpu_pressure,
        _text(sample.cpu_pressure, "{:.1f} %"),
    )
    yield Row(
        "cpu_limit",
        "highest CPU frequency",
        sample.cpu_limit,
        _text(sample.cpu_limit, "{:.0f} %", 100.0),
    )


def _text(reading: Reading, form: str, factor: float = 1.0) -> str:
    return "–" if reading.value is None else form.format(reading.value * factor)


def _yes(reading: Reading) -> str:
    return "–" if reading.value is None else ("yes" if reading.value else "no")
