"""What levels cost here: measured with a real model, stored, and taken up again."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import pytest

from edge_app.clock import ManualClock, RealClock
from edge_app.errors import EXIT_BUG, EXIT_USAGE, AppError
from edge_app.governor.energy import LevelCost
from edge_app.models import open_model
from edge_app.policy.model import Energy
from edge_app.profiles.measuring import (
    Block,
    Machine,
    conditions_of,
    cpu_id,
    disturbances,
    frequency_governor,
    level_profile,
    measure,
    percentile,
    profile_for,
    quick_times,
    to_profile,
    versions,
)
from edge_app.profiles.store import (
    FORMAT,
    Conditions,
    LevelProfile,
    StoredProfile,
    default_directory,
    load,
    store,
)
from edge_app.profiles.table import ProfileOptions, run, thread_counts
from edge_app.sensors import Quality, Reading, Sample
from edge_app.sensors.root import Attribute, SysRoot

ENERGY = Energy()
RAPL = "sys/class/powercap/intel-rapl:0"
BUSY_W, IDLE_W = 20.0, 5.0


class Package:
    """A machine whose package counts 5 W, and 20 W more while this process computes."""

    name = "a package"
    is_this_machine = False

    def __init__(self, source: str = "package-0") -> None:
        self._source = source

    def entries(self, path: str) -> list[str]:
        return ["intel-rapl:0"] if path == "sys/class/powercap" else []

    def read(self, path: str) -> Attribute:
        joules = time.perf_counter() * IDLE_W + time.process_time() * BUSY_W
        content = {
            f"{RAPL}/name": self._source,
            f"{RAPL}/max_energy_range_uj": str(10**15),
            f"{RAPL}/energy_uj": str(round(joules * 1e6)),
        }.get(path)
        return Attribute(None, "ENOENT") if content is None else Attribute(content)


def write(root: Path, files: dict[str, str]) -> SysRoot:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return SysRoot(root)


# One level ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "value"), [(0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (0.9, 4), (1.0, 4), (0.0, 1)]
)
def test_percentile(share: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], share) == value


def test_a_level_from_its_times() -> None:
    times = tuple(0.001 * number for number in (5, 1, 4, 2, 3, 6, 8, 7, 10, 9))
    level = level_profile(4, Block(times, 0.06, 0.9), 5.0)
    assert (level.bits, level.runs) == (4, 10)
    assert level.median_s == pytest.approx(0.0055)
    assert level.p90_s == pytest.approx(0.009)
    assert level.spread == pytest.approx((0.008 - 0.003) / 0.0055)
    # 0.9 J less 0.06 s of 5 W, over ten runs.
    assert level.joules == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("joules", "idle_w"), [(None, 5.0), (0.9, None), (0.3, 5.0), (0.2999, 5.0), (0.0, 0.0)]
)
def test_joules_that_do_not_stand_out_are_none(joules: float | None, idle_w: float | None) -> None:
    assert level_profile(4, Block((0.006,) * 10, 0.06, joules), idle_w).joules is None


# What disturbs --------------------------------------------------------------------------------------


def make_sample(**readings: float) -> Sample:
    return Sample(
        0.0, **{name: Reading(value, 0.0, Quality.OK, name) for name, value in readings.items()}
    )


@pytest.mark.parametrize(
    ("samples", "problems"),
    [
        ([], []),
        ([Sample(0.0)], []),
        ([make_sample(other_load=0.10, cpu_limit=1.0, throttled=0.0, under_voltage=0.0)], []),
        (
            [make_sample(other_load=0.11), make_sample(other_load=0.5), make_sample()],
            ["other programs used up to 50% of the CPUs"],
        ),
        ([make_sample(throttled=1.0), make_sample(throttled=0.0)], ["the CPU was throttled"]),
        (
            [make_sample(cpu_limit=0.99), make_sample(cpu_limit=0.7)],
            ["the CPU was limited to 70% of its highest frequency"],
        ),
        ([make_sample(under_voltage=1.0)], ["the power supply was too weak"]),
        ([Sample(0.0, throttled=Reading(1.0, 0.0, Quality.STALE, ""))], []),
    ],
)
def test_disturbances(samples: list[Sample], problems: list[str]) -> None:
    assert disturbances(samples) == problems


def test_disturbances_are_seen_while_measuring(tmp_path: Path) -> None:
    cpufreq = "sys/devices/system/cpu/cpufreq/policy0"
    root = write(
        tmp_path,
        {f"{cpufreq}/scaling_max_freq": "1200000", f"{cpufreq}/cpuinfo_max_freq": "2400000"},
    )
    machine = Machine(root, ManualClock())
    assert machine.disturbances() == []
    machine.block(None, 1.0)
    assert machine.disturbances() == ["the CPU was limited to 50% of its highest frequency"]
    assert machine.energy_source == ""


def test_idling_takes_as_long_as_it_is_told_to_and_reads_the_meter_each_second(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    base = "sys/class/hwmon/hwmon0"
    write(tmp_path, {f"{base}/name": "ina226", f"{base}/power1_input": "2500000"})
    machine = Machine(SysRoot(tmp_path), clock)
    block = machine.block(None, 90.5)
    assert block.times == () and block.seconds == pytest.approx(90.5)
    # Power is not taken to stay what it was for longer than a minute without a look.
    assert block.joules == pytest.approx(2.5 * 90.5)


def test_calls_are_timed_one_by_one() -> None:
    calls: list[float] = []
    machine = Machine(Package(), RealClock())
    block = machine.block(lambda: calls.append(time.perf_counter()), 0.05)
    assert len(block.times) == len(calls) >= 20
    assert all(taken > 0 for taken in block.times)
    assert sum(block.times) <= block.seconds
    assert block.joules is not None and block.joules > 0
    # However long they take, some are needed.
    slow = machine.block(lambda: time.sleep(0.002), 0.001)
    assert len(slow.times) == 20


# A real model ---------------------------------------------------------------------------------------


def test_measures_every_level_of_a_model() -> None:
    with open_model("digits") as program:
        profile = measure(program, 1, "normal", 0.1, Package(), RealClock())
    assert profile.format == FORMAT and profile.model == "digits"
    assert [level.bits for level in profile.levels] == [2, 4, 6, 8]
    for level in profile.levels:
        assert 0 < level.median_s <= level.p90_s and level.runs >= 20
        # Whatever else ran: a run took no more energy than its computing.
        assert level.joules is None or level.joules < BUSY_W
    assert profile.energy_source == "CPU package" and not profile.whole_device
    assert profile.idle_w is not None and profile.idle_w >= IDLE_W * 0.9
    assert profile.governor == "none" and profile.versions == versions()
    assert profile.conditions.threads == 1 and profile.conditions.memory == "normal"


def test_quick_times_of_every_level() -> None:
    with open_model("digits") as program:
        seconds = quick_times(program)
    assert sorted(seconds) == [2, 4, 6, 8] and all(taken > 0 for taken in seconds.values())


# The machine ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"proc/cpuinfo": "processor : 0\nmodel name : Fast CPU @ 2 GHz\n"}, "Fast CPU @ 2 GHz"),
        ({"proc/cpuinfo": "processor : 0\nModel : Raspberry Pi 5 Model B\n"}, "Raspberry Pi 5"),
        (
            {"proc/cpuinfo": "CPU part : 0xd08\n", "proc/device-tree/model": "Rock 5B\0"},
            "Rock 5B",
        ),
        (
            {"proc/cpuinfo": "CPU implementer : 0x41\nCPU part : 0xd0b\nCPU part : 0xd08\n"},
            "0x41 0xd0b",
        ),
        ({}, "unknown CPU"),
    ],
)
def test_identity_of_the_cpu(tmp_path: Path, files: dict[str, str], name: str) -> None:
    root = write(tmp_path, files)
    for directory in ("cpu0", "cpu1", "cpufreq", "cpuidle"):
        (tmp_path / "sys/devices/system/cpu" / directory).mkdir(parents=True)
    identity = cpu_id(root)
    assert identity.startswith(name) and identity.endswith(", 2 CPUs")


def test_frequency_governors(tmp_path: Path) -> None:
    assert frequency_governor(SysRoot(tmp_path)) == "none"
    base = "sys/devices/system/cpu/cpufreq"
    root = write(
        tmp_path,
        {
            f"{base}/policy0/scaling_governor": "schedutil\n",
            f"{base}/policy4/scaling_governor": "performance\n",
            f"{base}/policy6/scaling_governor": "schedutil\n",
            f"{base}/ondemand/scaling_governor": "no policy\n",
        },
    )
    assert frequency_governor(root) == "performance + schedutil"


# Stored ---------------------------------------------------------------------------------------------


CONDITIONS = Conditions(
    model_sha256="ab" * 32, cpu="A CPU, 4 CPUs", threads=2, memory="normal", isa="avx2"
)


def make_level(bits: int, joules: float | None, spread: float = 0.05) -> LevelProfile:
    return LevelProfile(
        bits=bits, runs=100, median_s=bits * 0.005, p90_s=bits * 0.006, spread=spread, joules=joules
    )


def make_stored(
    *joules: float | None, whole_device: bool = True, idle_w: float | None = 3.5
) -> StoredProfile:
    return StoredProfile(
        format=FORMAT,
        conditions=CONDITIONS,
        model="a model",
        levels=tuple(
            make_level(bits, value)
            for bits, value in zip((2, 4, 8), joules or (0.1, 0.2, 0.4), strict=True)
        ),
        idle_w=idle_w,
        energy_source="VDD_IN",
        whole_device=whole_device,
        governor="schedutil",
        versions={"edge-app": "1"},
        measured_at="2026-06-01T12:00:00+00:00",
        warnings=("something",),
    )


def test_measured_joules_for_the_governor() -> None:
    profile = to_profile(make_stored(), ENERGY)
    assert profile.levels[8] == LevelCost(0.040, 0.4)
    assert profile.idle_w == 3.5 and profile.source == "measured (VDD_IN)"


def test_idle_power_of_a_part_is_not_that_of_the_device() -> None:
    assert to_profile(make_stored(whole_device=False), ENERGY).idle_w == ENERGY.idle_w
    assert to_profile(make_stored(idle_w=None), ENERGY).idle_w == ENERGY.idle_w


def test_one_level_without_joules_makes_all_of_them_stated() -> None:
    profile = to_profile(make_stored(0.1, None, 0.4), ENERGY)
    assert profile.levels[8] == LevelCost(0.040, pytest.approx(0.040 * ENERGY.active_w))
    assert profile.idle_w == ENERGY.idle_w and profile.source == "stated model"


def test_stored_and_read_again(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "there yet"
    assert load(CONDITIONS, directory) is None
    path = store(make_stored(), directory)
    assert [entry.name for entry in directory.iterdir()] == [CONDITIONS.file_name] == [path.name]
    assert load(CONDITIONS, directory) == make_stored()
    changed = make_stored(0.2, 0.3, 0.5)
    store(changed, directory)
    assert load(CONDITIONS, directory) == changed


@pytest.mark.parametrize(
    "change",
    [
        {"model_sha256": "cd" * 32},
        {"cpu": "B CPU"},
        {"threads": 1},
        {"memory": "low"},
        {"isa": "neon"},
    ],
)
def test_other_conditions_are_another_file(change: dict[str, Any]) -> None:
    assert CONDITIONS.model_copy(update=change).file_name != CONDITIONS.file_name


def changed_json(**changes: Any) -> bytes:
    document = json.loads(make_stored().model_dump_json())
    return json.dumps({**document, **changes}).encode()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "Invalid JSON"),
        (b"{", "Invalid JSON"),
        (b"\xff\xfe\x00", "Invalid JSON"),
        (b"[]", "should be an object"),
        (b"{}", "format"),
        (changed_json(format="edge-app/profile/2"), "format"),
        (changed_json(extra=1), "extra"),
        (changed_json(levels=[]), "levels"),
        (changed_json(idle_w=-1.0), "idle_w"),
        (changed_json(levels=[{"bits": 2}]), "levels.0"),
        (
            changed_json(
                levels=[json.loads(make_level(2, 0.1).model_dump_json()) | {"median_s": 0}]
            ),
            "median_s",
        ),
        (changed_json(conditions=json.loads(CONDITIONS.model_dump_json()) | {"threads": 3}), ""),
    ],
)
def test_damaged_and_foreign_files_are_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, named: str
) -> None:
    path = tmp_path / CONDITIONS.file_name
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert load(CONDITIONS, tmp_path) is None
    (record,) = caplog.records
    assert str(path) in record.getMessage() and named in record.getMessage()
    assert path.read_bytes() == content


def test_a_directory_in_the_place_of_a_profile(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / CONDITIONS.file_name).mkdir()
    assert load(CONDITIONS, tmp_path) is None
    assert "Is a directory" in caplog.text
    with pytest.raises(AppError, match="cannot be written") as caught:
        store(make_stored(), tmp_path)
    assert caught.value.exit_code == EXIT_BUG
    assert [entry.name for entry in tmp_path.iterdir()] == [CONDITIONS.file_name]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_none_are_not_stored(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        make_level(2, value)


def test_where_profiles_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "edge-app" / "profiles"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == tmp_path / ".cache" / "edge-app" / "profiles"


# Taken up by a run ----------------------------------------------------------------------------------


def test_a_run_takes_the_stored_profile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = SysRoot(tmp_path / "sys of nothing")
    with open_model("digits") as program:
        conditions = conditions_of(program, 1, "normal", root)
        stored = make_stored().model_copy(
            update={
                "conditions": conditions,
                "levels": tuple(make_level(bits, 0.1 * bits) for bits in program.levels),
                "governor": "none",
                "versions": versions(),
            }
        )
        store(stored, tmp_path)
        profile = profile_for(program, 1, "normal", ENERGY, tmp_path, root)
        assert profile.levels[6] == LevelCost(0.030, pytest.approx(0.6))
        assert not caplog.records
        # Other conditions: measured quickly, by the stated model, without a word.
        for threads, memory in ((2, "normal"), (1, "low")):
            other = profile_for(program, threads, memory, ENERGY, tmp_path, root)
            assert other.source == "stated model" and sorted(other.levels) == [2, 4, 6, 8]
            for cost in other.levels.values():
                assert cost.joules == pytest.approx(ENERGY.active_w * cost.seconds)
            assert other.idle_w == ENERGY.idle_w
        assert not caplog.records


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"governor": "powersave"}, "governor was powersave and is none"),
        ({"versions": {"edge-app": "0"}}, "another version"),
        ({"levels": (make_level(2, 0.1),)}, "other levels"),
        (
            {"levels": tuple(make_level(bits, 0.1, spread=bits / 7.9) for bits in (2, 4, 6, 8))},
            "times spread by 101%",
        ),
    ],
)
def test_an_outdated_profile_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict[str, Any], reason: str
) -> None:
    root = SysRoot(tmp_path / "nothing")
    with open_model("digits") as program:
        sound: dict[str, Any] = {
            "conditions": conditions_of(program, 1, "normal", root),
            "levels": tuple(make_level(bits, 0.1 * bits) for bits in program.levels),
            "governor": "none",
            "versions": versions(),
        }
        store(make_stored().model_copy(update=sound | change), tmp_path)
        profile = profile_for(program, 1, "normal", ENERGY, tmp_path, root)
    assert profile.source == "stated model"
    assert reason in caplog.text and "run edge-app profile" in caplog.text


# The command ----------------------------------------------------------------------------------------


def test_thread_counts() -> None:
    assert thread_counts("1", 4) == [1]
    assert thread_counts("4, 1,2,2", 4) == [1, 2, 4]
    for text in ("0", "5", "-1", "1,,2", "", "two"):
        with pytest.raises(AppError, match="--threads") as caught:
            thread_counts(text, 4)
        assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_measures_stores_and_prints(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    as_json: bool,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run(ProfileOptions("digits", "1", "low", 0.1, as_json)) == 0
    (file,) = default_directory().iterdir()
    output = capsys.readouterr()
    assert str(file) in output.err
    if as_json:
        assert json.loads(output.out) == [json.loads(file.read_text())]
        return
    lines = output.out.splitlines()
    assert lines[0].startswith("digits on ")
    rows = [line.split()[:2] for line in lines if line.split()[1:2] and line.split()[0] == "1"]
    assert rows == [["1", bits] for bits in "2468"]
    assert any(line.startswith("memory low; frequency governor ") for line in lines)


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(AppError, match="no model 'nonesuch'"):
        run(ProfileOptions("nonesuch", "1", "normal", 0.1, False))
