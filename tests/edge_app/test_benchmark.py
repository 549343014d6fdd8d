"""The benchmark's own work. How long anything takes is nobody's test."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from running import Run

from edge_app.bench import benchmark
from edge_app.bench.memory import resident_bytes
from edge_app.errors import EXIT_MODEL, EXIT_USAGE, AppError
from edge_app.models import find
from edge_app.plotting import plot_benchmark

SCHEMA = Path(__file__).parents[2] / "edge_app/assets/schema/benchmark.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


def test_sides_take_turns_and_only_second_calls_of_measured_rounds_count() -> None:
    calls: list[str] = []
    sides = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = benchmark.measure(sides, 3)
    assert calls == ["a", "a", "b", "b"] * (benchmark.WARM_UP + 3)
    assert {name: found.wall.shape for name, found in times.items()} == {"a": (3,), "b": (3,)}
    assert min(found.wall.min() for found in times.values()) > 0


def test_a_pause_is_time_but_not_cpu_time() -> None:
    times = benchmark.measure({"pause": lambda: time.sleep(0.02)}, 1)["pause"]
    assert times.wall[0] >= 20e6 > 2 * times.cpu[0]


def test_cpus_are_the_first_of_those_allowed() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    assert benchmark.chosen_cpus(None, 1) == allowed[:1]
    assert benchmark.chosen_cpus(f"{allowed[-1]}-{allowed[-1]}", 1) == allowed[-1:]
    assert benchmark.chosen_cpus(",".join(map(str, allowed)), len(allowed)) == allowed


@pytest.mark.parametrize(
    ("cpus", "threads", "message"),
    [
        ("100000", 1, "may not use .100000.; choose from"),
        ("one", 1, "give numbers and ranges"),
        ("0-", 1, "give numbers and ranges"),
        ("", 1, "give numbers and ranges"),
        (None, 100000, "--threads 100000: only the CPUs"),
    ],
)
def test_cpus_that_are_not_there_are_refused(cpus: str | None, threads: int, message: str) -> None:
    with pytest.raises(AppError, match=message) as raised:
        benchmark.chosen_cpus(cpus, threads)
    assert raised.value.exit_code == EXIT_USAGE


def test_threads_are_pinned_and_let_go_again() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError), benchmark.pinned([min(before)]):
        assert os.sched_getaffinity(0) == {min(before)}
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before


def test_the_processor_is_named(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Some CPU: 5 GHz\n\nprocessor\t: 1\n")
    assert benchmark.processor(cpuinfo) == "Some CPU: 5 GHz"
    cpuinfo.write_text("BogoMIPS : 50\nModel : Raspberry Pi 5\n")
    assert benchmark.processor(cpuinfo) == "Raspberry Pi 5"
    assert benchmark.processor(tmp_path / "absent")


def test_memory_is_what_a_new_process_adds() -> None:
    resident = resident_bytes(find("cifar10-resnet20"), 8, 1)
    assert resident is not None and 100_000 < resident < 50_000_000
    assert resident_bytes(Path("absent.pte"), 8, 1) is None


def test_every_level_is_measured(edge_app: Run, tmp_path: Path) -> None:
    result = edge_app("bench", "digits", "--rounds", 3, "--layers", "--json", tmp_path / "r.json")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    VALIDATOR.validate(report)
    [network] = report["networks"]
    assert (network["network"], network["input"], report["rounds"]) == ("resnet8", [8, 8], 3)
    assert [row["bits"] for row in network["sides"]] == [2, 4, 6, 8]
    for row in network["sides"]:
        assert row["min_us"] <= row["median_us"] <= row["p90_us"]
        assert row["gmacs"] == pytest.approx(row["macs"] / row["min_us"] / 1e3)
        assert row["ratio_to_int8"] is None
        share = 100 * row["gmacs"] / report["roofline_gmacs"]
        assert row["roofline_percent"] == pytest.approx(share)
        assert row["resident_bytes"] > 0
        line = next(line for line in result.stdout.splitlines() if f" {row['side']} " in line)
        assert f"{row['median_us'] / 1e3:.3f}" in line
    macs = {row["bits"]: row["macs"] for row in network["sides"]}
    for bits, layers in network["layers"].items():
        counted = sum(layer["macs"] for layer in layers)
        assert counted == macs[int(bits)] - 64 * 10, "all but the classifier"
        assert {layer["branch"] for layer in layers} > {0}
        assert all(layer["kernel"].split("__")[0] in result.stdout for layer in layers)
    for condition in (report["cpu"], "1 thread", "3 rounds", report["commit"], report["isa"]):
        assert condition in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("digits", "--rounds", 0), EXIT_USAGE, "--rounds"),
        (("digits", "--threads", 0), EXIT_USAGE, "--threads"),
        (("digits", "--cpus", "x"), EXIT_USAGE, "--cpus x"),
        (("digits", "--network", "resnet8"), EXIT_USAGE, "not both"),
        (("digits", "--size", 16), EXIT_USAGE, "goes with --network"),
        (("digits", "--json", "nowhere/r.json"), EXIT_USAGE, "its folder does not exist"),
        (("digits", "--plot", "nowhere/r.png"), EXIT_USAGE, "its folder does not exist"),
        (("absent.pte",), EXIT_MODEL, "no such file"),
    ],
)
def test_wrong_usage(edge_app: Run, arguments: tuple[Any, ...], code: int, message: str) -> None:
    result = edge_app("bench", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [(("--network", "resnet8"), "torch"), (("digits", "--peers"), "executorch")],
)
def test_building_without_the_server_extra_is_one_clear_line(
    edge_app: Run, tmp_path: Path, arguments: tuple[str, ...], missing: str
) -> None:
    """Python imports sitecustomize by itself, in the child that builds too."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == '{missing}':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
    )
    result = edge_app("bench", *arguments, "--rounds", 1, env={"PYTHONPATH": str(tmp_path)})
    assert (result.returncode, result.stdout) == (EXIT_USAGE, "")
    *progress, error = result.stderr.splitlines()
    assert re.search(f"'{missing}.*' is not installed.*pip install 'edge-app.server.'", error)
    assert all(line.startswith("building") for line in progress)


def report_of(*networks: str) -> dict[str, Any]:
    def side(name: str, bits: int | None, median: float) -> dict[str, Any]:
        return {
            "side": name,
            "bits": bits,
            "median_us": median,
            "min_us": 0.9 * median,
            "p90_us": 1.2 * median,
        }

    sides = [side("2 bits", 2, 100.0), side("XNNPACK int8", None, 200.0)]
    return {
        "cpu": "Some CPU",
        "threads": 1,
        "created": "2026-01-02T03:04:05+00:00",
        "networks": [{"network": name, "input": [32, 32], "sides": sides} for name in networks],
    }


def test_the_picture_shows_levels_and_others_in_their_colours(tmp_path: Path) -> None:
    plot_benchmark(report_of("resnet18", "resnet20"), tmp_path / "bench.png")
    image = cv2.imread(str(tmp_path / "bench.png"))
    assert image is not None and image.shape[1] > 900

    def pixels(red: int, green: int, blue: int) -> int:
        distance = np.abs(image.astype(int) - [blue, green, red]).max(axis=-1)
        return int((distance < 12).sum())

    # The baseline takes twice as long, so that its bar has twice the area.
    assert pixels(0x99, 0x99, 0x99) == pytest.approx(2 * pixels(0x00, 0x9E, 0x73), rel=0.2)
    with pytest.raises(AppError, match=r"bench\.png: cannot be written"):
        plot_benchmark(report_of("resnet20"), tmp_path / "nowhere" / "bench.png")


def test_etdump_is_written_for_one_network(tmp_path: Path) -> None:
    file = tmp_path / "digits.etdp"
    options = benchmark.BenchOptions(model="digits", rounds=1, etdump=file)
    assert benchmark.run(options) == 0
    # The identifier of ExecuTorch's schema.
    assert b"ED00" in file.read_bytes()[:12]
