"""One answer to "is the CPU held down now?" from everything that can tell."""

from __future__ import annotations

from dataclasses import dataclass

from edge_app.sensors.board import Board, BoardState, FirmwareFlags
from edge_app.sensors.cpufreq import ThrottleCounts
from edge_app.sensors.hwmon import Chip
from edge_app.sensors.root import Root
from edge_app.sensors.thermal import CoolingDevices
from edge_app.sensors.types import Quality, Reading, SensorStatus, absent
from edge_app.sensors.validators import Validator

NAME = "throttled"


@dataclass(frozen=True)
class Throttling:
    """``throttled``: 1 or 0; what says so is in the description."""

    throttled: Reading
    under_voltage: Reading


class Throttle:
    """Cooling devices of the kernel, flags of the firmware, counters of the CPU.

    Any one that says yes is believed. Where none is readable that was once, the answer is
    missing, not no.
    """

    def __init__(self, root: Root, flags: FirmwareFlags | None = None) -> None:
        self._coolers = CoolingDevices(root)
        self._board = Board(root, flags)
        self._counts = ThrottleCounts(root)
        self._validator = Validator(NAME, lambda _: None)
        self._seen = False
        self._signs: dict[str, bool] = {}
        self._state = BoardState(None, "", absent("under-voltage"))

    def read(self, time: float, chips: tuple[Chip, ...]) -> Throttling:
        self._state = self._board.read(time, chips)
        answers = {
            "cooling device": self._coolers.throttled(),
            "firmware": self._state.held_down,
            "throttle counters": self._counts.rising(time),
        }
        self._signs = {name: answer for name, answer in answers.items() if answer is not None}
        throttled = absent(NAME)
        if self._signs:
            self._seen = True
            throttled = self._validator.reading(float(any(self._signs.values())), time)
        elif self._seen:
            throttled = self._validator.reading(None, time, "none of its signs can be read")
        return Throttling(throttled, self._state.under_voltage)

    def describe(self, throttled: Reading) -> list[SensorStatus]:
        """Cooling devices, the verdict, the power supply and the firmware."""
        what = "frequency held down because of heat"
        if throttled.quality is Quality.ABSENT:
            detail = "nothing can tell: no cooling device for the CPU, no flags, no counters"
            if self._counts.present:
                detail = "throttle counters, known from the second sample on"
        elif not throttled.ok:
            detail = self._validator.fault
        elif throttled.value:
            yes = [name for name, answer in self._signs.items() if answer]
            detail = f"yes: {', '.join(yes)}"
            if self._state.why:
                detail += f" ({self._state.why})"
        else:
            detail = f"no ({', '.join(self._signs)})"
        return [
            self._coolers.describe(),
            SensorStatus("cpu throttle", what, throttled.quality, detail),
            *self._board.describe(self._state),
        ]
