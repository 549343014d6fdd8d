"""What the device can feel: heat, battery, throttling, load. Reads only; nothing is ever written.

Two sources of samples: ``SysfsSensors`` (this machine, or a copy of its /sys and /proc below
another root) and ``TraceSensors`` (a recording). Decisions do not belong here: a sample says what
was read and how far it can be trusted, the governor says what follows from it.
"""

from edge_app.sensors.sysfs import SysfsSensors
from edge_app.sensors.trace import TraceSensors
from edge_app.sensors.types import (
    NO_BATTERY,
    Battery,
    Quality,
    Reading,
    Sample,
    SensorSource,
    SensorStatus,
    Zone,
    absent,
)

__all__ = [
    "NO_BATTERY",
    "Battery",
    "Quality",
    "Reading",
    "Sample",
    "SensorSource",
    "SensorStatus",
    "SysfsSensors",
    "TraceSensors",
    "Zone",
    "absent",
]
