"""Which files of a machine a recording holds, and how much of them.

What the readers read, and what else of the same devices helps to understand it; nothing else. No
serial numbers, no addresses, no names of the machine or of its container.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edge_app.sensors.hwmon import DRIVES
from edge_app.sensors.root import Attribute, Root


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
    Watched("sys/bus/iio/devices/iio:device*", "in_*_input", "name rail_name_*"),
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
    Watched("proc", "stat"),
    Watched("proc/pressure", "cpu"),
    Watched("sys/fs/cgroup", "cpu.pressure cpu.stat", "cpu.max"),
    Watched("proc/device-tree", "", "model"),
    Watched("sys/class/dmi/id", "", "sys_vendor product_name"),
    Watched("sys/hypervisor", "", "type"),
    # Only whether they are there: what is in them names the container.
    Watched("", "", ".dockerenv"),
    Watched("run", "", ".containerenv"),
    Watched("run/systemd", "", "container"),
)
EMPTIED = (".dockerenv", "run/.containerenv")


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


def reduced(path: str, attribute: Attribute) -> Attribute:
    """What is kept of a file. Of /proc/stat the first line: interrupts by the hundred would be
    most of the recording."""
    if path == "proc/stat" and attribute.text:
        return Attribute(attribute.text.partition("\n")[0])
    return Attribute("") if path in EMPTIED and attribute.exists else attribute
