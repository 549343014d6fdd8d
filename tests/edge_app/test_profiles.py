"""What levels cost here: stored, taken up again by a run, and printed by the command."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from edge_app.errors import EXIT_BUG, EXIT_USAGE, AppError
from edge_app.governor.energy import LevelCost
from edge_app.models import open_model
from edge_app.policy.model import Energy
from edge_app.profiles.measuring import conditions_of, profile_for, to_profile, versions
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
from edge_app.sensors.root import SysRoot

ENERGY = Energy()


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
