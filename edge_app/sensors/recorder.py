"""Records a machine's sensor files into the format of ``recording``.

Only what ``WATCHED`` names is read: what the readers read, and what else of the same devices helps
to understand them. No serial numbers, no addresses, no host name; an address that is part of a
device's name (Bluetooth batteries) is replaced.
"""

from __future__ import annotations

import gzip
import json
import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from edge_app.clock import Clock
from edge_app.errors import EXIT_BUG, EXIT_USAGE, AppError
from edge_app.sensors.hwmon import DRIVES
from edge_app.sensors.recording import ERROR_NAME, FORMAT, GONE
from edge_app.sensors.root import Attribute, Root

RESCAN_S = 30.0
"""How often devices and files that came since are looked for, and the fixed files read again."""

FLUSH_S = 10.0
"""How much a power cut may cost."""

SLICE_S = 0.1
"""No wait is longer: a request to stop is looked at between."""


@dataclass(frozen=True)
class Watched:
    """Files of a kind of device: ``live`` ones are read for every sample, ``fixed`` ones rarely.

    All three are patterns of names; ``directory`` has one for each part of the path.
    """

    directory: str
    live: str
    fixed: str = ""


WATCHED = (
    # Documentation/ABI/testing/sysfs-class-thermal
    Watched("sys/class/thermal/thermal_zone*", "temp mode", "type policy trip_point_*"),
    Watched("sys/class/thermal/cooling_device*", "cur_state", "type max_state"),
    # Documentation/ABI/testing/sysfs-class-hwmon, and the rails of INA drivers
    Watched(
        "sys/class/hwmon/hwmon*",
        "temp*_input temp*_fault temp*_alarm temp*_crit_alarm in*_input in*_alarm in*_lcrit_alarm "
        "curr*_input curr*_alarm power*_input power*_average energy*_input fan*_input "
        "oc*_event_cnt",
        "name *_label *_enable temp*_type temp*_max temp*_crit temp*_emergency",
    ),
    Watched("sys/class/hwmon/hwmon*/device", "", "temp"),
    # Documentation/ABI/testing/sysfs-bus-iio: older kernels of Jetson have their rails here
    Watched(
        "sys/bus/iio/devices/iio:device*", "in_*_input in_*_raw", "name rail_name_* in_*_scale"
    ),
    # Documentation/ABI/testing/sysfs-class-power
    Watched(
        "sys/class/power_supply/*",
        "present online status health capacity capacity_level energy_now charge_now power_now "
        "power_avg current_now current_avg voltage_now voltage_avg voltage_ocv temp "
        "time_to_empty_now time_to_empty_avg",
        "type scope usb_type technology capacity_error_margin energy_full energy_full_design "
        "charge_full charge_full_design voltage_min_design voltage_max_design cycle_count",
    ),
    # Documentation/ABI/testing/sysfs-class-powercap; subzones are listed in the class, too
    Watched("sys/class/powercap/*", "energy_uj power_uw", "name enabled max_energy_range_uj"),
    Watched(
        "sys/devices/system/cpu/cpufreq/policy*",
        "scaling_cur_freq scaling_max_freq",
        "affected_cpus related_cpus cpuinfo_max_freq cpuinfo_min_freq scaling_min_freq "
        "scaling_driver scaling_governor",
    ),
    Watched("sys/devices/system/cpu/intel_pstate", "max_perf_pct"),
    Watched(
        "sys/devices/system/cpu/cpu*/thermal_throttle",
        "core_throttle_count package_throttle_count core_throttle_total_time_ms "
        "package_throttle_total_time_ms",
    ),
    Watched("sys/devices/platform/soc*/soc*:firmware", "get_throttled"),
    Watched("proc", "stat loadavg"),
    Watched("proc/pressure", "cpu memory io"),
    Watched("sys/fs/cgroup", "cpu.pressure cpu.stat", "cpu.max"),
    Watched("proc/device-tree", "", "model compatible"),
    Watched("sys/firmware/devicetree/base", "", "model compatible"),
    Watched("sys/class/dmi/id", "", "sys_vendor product_name"),
    Watched("sys/hypervisor", "", "type"),
    # Only whether they are there: what is in them names the container.
    Watched("", "", ".dockerenv"),
    Watched("run", "", ".containerenv"),
    Watched("run/systemd", "", "container"),
)
EMPTIED = (".dockerenv", "run/.containerenv")

ADDRESS = re.compile(
    r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{2}(?:([:_-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}"
)


def _names_only(root: Root, directory: str) -> bool:
    """Whether nothing but the name may be read: asking a drive's chip wakes the drive."""
    chip = re.fullmatch(r"sys/class/hwmon/[^/]+", directory)
    return chip is not None and root.read(f"{directory}/name").text in DRIVES


def watched_paths(root: Root, live_only: bool = False) -> Iterator[str]:
    """Every file below ``root`` that a recording holds."""
    for watched in WATCHED:
        names = watched.live.split() + ([] if live_only else watched.fixed.split())
        for directory in _expand(root, "", watched.directory.split("/")):
            asleep = _names_only(root, directory)
            for entry in root.entries(directory):
                if asleep and entry != "name":
                    continue
                if any(fnmatchcase(entry, name) for name in names):
                    yield f"{directory}/{entry}" if directory else entry


def _expand(root: Root, base: str, parts: list[str]) -> Iterator[str]:
    if not parts or parts == [""]:
        yield base
        return
    first, *rest = parts
    names = [first]
    if "*" in first:
        names = [entry for entry in root.entries(base) if fnmatchcase(entry, first)]
    for name in names:
        yield from _expand(root, f"{base}/{name}" if base else name, rest)


class Snapshots:
    """The watched files of a root: all of them at first, then what has changed."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._known: dict[str, Attribute] = {}
        self._live: list[str] = []
        self._scanned: float | None = None
        self._addresses: dict[str, str] = {}

    @property
    def files(self) -> int:
        """How many files have been seen."""
        return len(self._known)

    def changes(self, time: float) -> list[tuple[str, Attribute]]:
        """What files give now that did not give it at the last call."""
        if self._scanned is None or time - self._scanned >= RESCAN_S:
            self._scanned = time
            self._live = list(watched_paths(self._root, live_only=True))
            # Files that are no longer there, too: that is how a recording learns it.
            paths = dict.fromkeys([*self._known, *watched_paths(self._root)])
        else:
            paths = dict.fromkeys(self._live)
        changed = []
        for path in paths:
            attribute = _reduced(path, self._root.read(path))
            if attribute != self._known.get(path, GONE):
                changed.append((self._anonymous(path), attribute))
            self._known[path] = attribute
        return [
            (path, Attribute(attribute.text and self._anonymous(attribute.text), attribute.error))
            for path, attribute in changed
        ]

    def _anonymous(self, text: str) -> str:
        """``text`` with hardware addresses replaced, each by the same one every time."""

        def other(match: re.Match[str]) -> str:
            address = re.sub("[:_-]", "", match[0]).lower()
            number = self._addresses.setdefault(address, f"{len(self._addresses) + 1:012x}")
            return match[1].join(number[place : place + 2] for place in range(0, 12, 2))

        return ADDRESS.sub(other, text)


def _reduced(path: str, attribute: Attribute) -> Attribute:
    """What is kept of a file. Of /proc/stat the first line: interrupts by the hundred would be
    most of the recording."""
    if path == "proc/stat" and attribute.text:
        return Attribute(attribute.text.partition("\n")[0])
    return Attribute("") if path in EMPTIED and attribute.exists else attribute


def machine() -> dict[str, Any]:
    """What a recording's header says about the machine it runs on."""
    return {
        "arch": platform.machine(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }


class RecordingFile:
    """A recording that is being written: to a file beside its place, which gets its name at the
    end. What cannot be replaced, such as a pipe, is written at once.

    AppError (exit code 2) if it cannot be opened, with 1 if it cannot be written to its end.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        beside = target.is_file() or not target.exists()
        self.path = target.with_name(f"{target.name}.part") if beside else target
        try:
            self._file = self.path.open("wb")
        except OSError as error:
            raise AppError(
                f"--out {target}: {error.strerror}; give a file in a directory that exists and "
                "that you may write to",
                EXIT_USAGE,
            ) from None
        self._stream: BinaryIO | gzip.GzipFile = self._file
        if target.suffix == ".gz":
            # Neither name nor time: the same samples give the same file.
            self._stream = gzip.GzipFile("", "wb", fileobj=self._file, mtime=0)

    def write(self, value: Any) -> None:
        """One line of JSON."""
        line = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        self._guarded(lambda: self._stream.write(line.encode("utf-8", "replace") + b"\n"))

    def flush(self) -> None:
        """From here on what was written survives the end of this program."""
        self._guarded(self._stream.flush)

    def close(self) -> int:
        """Give the file its name; bytes that it has."""

        def finish() -> None:
            if self._stream is not self._file:
                self._stream.close()
            self._file.flush()
            if self.path != self.target:
                os.fsync(self._file.fileno())

        self._guarded(finish)
        size = os.fstat(self._file.fileno()).st_size
        self._file.close()
        if self.path != self.target:
            os.replace(self.path, self.target)
        return size

    def _guarded(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except OSError as error:
            self._abandon()
            kept = f"; what was recorded until then is in {self.path}"
            raise AppError(
                f"{self.target}: cannot be written: {error.strerror}"
                + (kept if self.path != self.target else ""),
                EXIT_BUG,
            ) from None

    def _abandon(self) -> None:
        # Both would try once more to write what could not be written.
        for stream in (self._stream, self._file):
            try:
                stream.close()
            except OSError:
                pass


@dataclass(frozen=True)
class Progress:
    """How far a recording has come: seconds, samples, and files seen."""

    seconds: float
    samples: int
    files: int


@dataclass(frozen=True)
class Recorded(Progress):
    """How it ended; ``size`` in bytes."""

    size: int = 0
    interrupted: bool = False


def record(
    root: Root,
    clock: Clock,
    target: Path,
    *,
    duration_s: float,
    interval_s: float,
    note: str = "",
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Recorded:
    """Record ``root`` from now on into ``target``.

    Ends after ``duration_s``, or soon after ``stopping`` says so; either way the file is whole.
    ``progress`` is called after every sample.
    """
    file = RecordingFile(target)
    header: dict[str, Any] = {"recording": FORMAT, "made_by": f"edge-app {version('edge-app')}"}
    if note:
        header["note"] = note
    header["wall"] = datetime.now().astimezone().isoformat(timespec="seconds")
    if root.is_this_machine:
        header["machine"] = machine()
    file.write(header)
    snapshots = Snapshots(root)
    start = clock.now()
    due = flushed = elapsed = 0.0
    samples = 0
    while True:
        for path, attribute in snapshots.changes(elapsed):
            file.write([round(elapsed, 3), path, _value(attribute)])
        samples += 1
        if samples == 1 or elapsed - flushed >= FLUSH_S:
            flushed = elapsed
            file.flush()
        progress(Progress(elapsed, samples, snapshots.files))
        # After a delay there is no burst of samples to make up for it.
        due = min(max(due + interval_s, clock.now() - start), duration_s)
        if elapsed >= duration_s or _interrupted(clock, start + due, stopping):
            break
        elapsed = clock.now() - start
    interrupted = elapsed < duration_s
    end: dict[str, Any] = {"end": round(elapsed, 3), "samples": samples}
    if interrupted:
        end["interrupted"] = True
    file.write(end)
    return Recorded(elapsed, samples, snapshots.files, file.close(), interrupted)


def _interrupted(clock: Clock, due: float, stopping: Callable[[], bool]) -> bool:
    """Wait until ``due``; True at once if something asks to stop."""
    while not stopping():
        left = due - clock.now()
        if left <= 0:
            return False
        clock.sleep(min(left, SLICE_S))
    return True


def _value(attribute: Attribute) -> str | dict[str, str] | None:
    if attribute.text is not None:
        return attribute.text
    if attribute == GONE:
        return None
    # An error that has no name here has one in the log of the kernel.
    return {"errno": attribute.error if ERROR_NAME.fullmatch(attribute.error) else "EIO"}
