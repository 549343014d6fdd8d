"""What boards say of themselves: a weak power supply, throttling by firmware, over-current.

Raspberry Pi: the firmware's `get_throttled` bits, and the hwmon chip `rpi_volt` of
drivers/hwmon/raspberrypi-hwmon.c. That driver asks every 2 s and clears the sticky bits as it
does, so that its alarm means "in the last 2 s", and so do the bits called "since boot" once it is
loaded. Jetson: the over-current counters of the hwmon chip `soctherm_oc`.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from edge_app.sensors.hwmon import Chip
from edge_app.sensors.root import Attribute, Root
from edge_app.sensors.types import Quality, Reading, SensorStatus, absent
from edge_app.sensors.validators import Validator

PLATFORM = "sys/devices/platform"
UNDER_VOLTAGE = 1 << 0
HELD_DOWN = {1 << 1: "frequency capped", 1 << 2: "throttled", 1 << 3: "soft temperature limit"}
STICKY_SHIFT = 16

VCGENCMD = ("vcgencmd", "get_throttled")
ASK_EVERY_S = 10.0
"""Starting a program costs some milliseconds of CPU time."""
PATIENCE_S = 1.0
"""Less than the sensors' guard has: that this program hangs is no reason to give up all others."""

DMI = ("sys_vendor", "product_name")
HYPERVISORS = (
    "QEMU",
    "KVM",
    "VMware",
    "VirtualBox",
    "Xen",
    "HVM domU",
    "Parallels",
    "Amazon EC2",
    "Google Compute Engine",
    "Virtual Machine",
)
"""What hypervisors give as the maker or the name of the machine."""


class FirmwareFlags:
    """`get_throttled` of a Raspberry Pi, from sysfs or else from `vcgencmd`.

    `vcgencmd` is asked only where the file is missing, /dev/vcio exists and the root is this
    machine, and at most every 10 s.
    """

    def __init__(self, root: Root, command: Sequence[str] = VCGENCMD) -> None:
        self._root = root
        self._command = command
        self._path = _flags_file(root)
        self._vcio = self._path is None and root.is_this_machine and "vcio" in root.entries("dev")
        self._asked = -math.inf
        self._answer = Attribute(None)
        self.present = self._path is not None or self._vcio
        self.problem = ""
        self.source = f"/{self._path}" if self._path is not None else " ".join(command)

    def read(self, time: float) -> int | None:
        """The bits, or None."""
        if not self.present:
            return None
        if self._path is not None:
            answer = self._root.read(self._path)
        else:
            if time - self._asked >= ASK_EVERY_S:
                self._asked, self._answer = time, _ask(self._command)
            answer = self._answer
        text = (answer.text or "").rpartition("=")[2]
        try:
            bits = int(text, 16)
        except ValueError:
            bits = -1
        if not 0 <= bits <= 0xFFFFFFFF:
            self.problem = answer.error or f"content is {answer.text!r}, not hexadecimal"
            return None
        self.problem = ""
        return bits


def _flags_file(root: Root) -> str | None:
    """`soc/soc:firmware/get_throttled`; on a Pi 5 the node's name holds an address."""
    for soc in root.entries(PLATFORM):
        if soc.startswith("soc"):
            for node in root.entries(f"{PLATFORM}/{soc}"):
                path = f"{PLATFORM}/{soc}/{node}/get_throttled"
                if node.endswith(":firmware") and root.read(path).exists:
                    return path
    return None


def _ask(command: Sequence[str]) -> Attribute:
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except FileNotFoundError:
        return Attribute(None, f"/dev/vcio is there, but no program {command[0]}")
    except (OSError, subprocess.SubprocessError) as error:
        return Attribute(None, f"{command[0]}: {error}")
    if answer.returncode != 0:
        said = (answer.stderr or answer.stdout).strip()
        return Attribute(None, f"{command[0]}: {said} (group 'video' may ask)")
    return Attribute(answer.stdout.strip())


@dataclass(frozen=True)
class BoardState:
    """``held_down``: whether firmware slows the CPU; None if nothing can tell. ``why``: its
    words for it."""

    held_down: bool | None
    why: str
    under_voltage: Reading


class Board:
    """Under-voltage and throttling as the board's firmware and its monitors see them."""

    def __init__(self, root: Root, flags: FirmwareFlags | None = None) -> None:
        self._root = root
        self._flags = flags if flags is not None else FirmwareFlags(root)
        self._supply = Validator("under-voltage", lambda _: None)
        self._supply_seen = False
        self._counts: dict[str, float] = {}
        self._bits: int | None = None

    def read(self, time: float, chips: tuple[Chip, ...]) -> BoardState:
        bits = self._bits = self._flags.read(time)
        signs = []
        held_down = over = self._over_current(chips)
        if over:
            signs.append("over-current")
        if bits is not None:
            signs += [text for bit, text in HELD_DOWN.items() if bits & bit]
            held_down = bool(signs)
        return BoardState(held_down, ", ".join(signs), self._under_voltage(time, chips, bits))

    def _under_voltage(self, time: float, chips: tuple[Chip, ...], bits: int | None) -> Reading:
        alarms = [
            self._root.read(f"{chip.directory}/in0_lcrit_alarm")
            for chip in chips
            if chip.name == "rpi_volt"
        ]
        known = [alarm > 0 for answer in alarms if (alarm := answer.number()) is not None]
        if bits is not None:
            known.append(bool(bits & UNDER_VOLTAGE))
        self._supply_seen = self._supply_seen or bool(alarms) or self._flags.present
        if known:
            return self._supply.reading(float(any(known)), time)
        if not self._supply_seen:
            return absent("under-voltage")
        problems = [answer.problem for answer in alarms] or [self._flags.problem or "vanished"]
        return self._supply.reading(None, time, problems[0])

    def _over_current(self, chips: tuple[Chip, ...]) -> bool | None:
        """Whether an over-current counter rose since the last look; None if there is none."""
        counts = {
            f"{chip.name}/{file}": count
            for chip in chips
            if chip.name.startswith("soctherm")
            for file in chip.files
            if re.fullmatch(r"oc\d+_event_cnt", file)
            and (count := self._root.read(f"{chip.directory}/{file}").number()) is not None
        }
        before, self._counts = self._counts, counts
        common = counts.keys() & before.keys()
        return any(counts[name] > before[name] for name in common) if common else None

    def describe(self, state: BoardState) -> list[SensorStatus]:
        """The power supply, and the firmware's flags where there are some."""
        what = "weak power supply"
        reading = state.under_voltage
        if reading.quality is Quality.ABSENT:
            detail = "this board does not watch its supply"
        elif reading.ok:
            detail = "yes: the voltage falls too low" if reading.value else "no"
        else:
            detail = self._supply.fault
        statuses = [SensorStatus("under-voltage", what, reading.quality, detail)]
        if not self._flags.present:
            return statuses
        what = "Raspberry Pi throttle flags"
        if self._bits is None:
            detail = f"{self._flags.source}: {self._flags.problem}"
            return [*statuses, SensorStatus("firmware", what, Quality.MISSING, detail)]
        texts = {UNDER_VOLTAGE: "under-voltage", **HELD_DOWN}
        now = [text for bit, text in texts.items() if self._bits & bit]
        earlier = [text for bit, text in texts.items() if self._bits >> STICKY_SHIFT & bit]
        detail = f"now: {', '.join(now) or 'none'}; earlier: {', '.join(earlier) or 'none'}"
        return [*statuses, SensorStatus("firmware", what, Quality.OK, detail)]


def surroundings(root: Root) -> str:
    """ "container" or "virtual machine" where the files say that this is one, else ""."""
    if any(root.read(path).exists for path in (".dockerenv", "run/.containerenv")):
        return "container"
    if root.read("run/systemd/container").text:
        return "container"
    told = [root.read(f"sys/class/dmi/id/{file}").text or "" for file in DMI]
    if root.read("sys/hypervisor/type").text or any(name in " ".join(told) for name in HYPERVISORS):
        return "virtual machine"
    return ""
