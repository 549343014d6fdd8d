"""`--device`: a GPU that runs the frames, one that is not there, one that goes away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge_app.governor import Event, load_policy
from edge_app.governor.energy import Profile
from edge_app.models import open_model
from edge_app.profiles.readiness import Readiness
from edge_app.session import RunOptions
from edge_app.switching import watch_device
from native_ops import Device, Program

pytestmark = [pytest.mark.vulkan, pytest.mark.usefixtures("vulkan")]

SCHEMA = Path(__file__).parents[2] / "edge_app/assets/schema/benchmark.schema.json"


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_gpu_runs_the_frames_as_the_cpu_does(
    edge_app: Any, tmp_path: Path, vulkan: Device
) -> None:
    seen = {}
    for device in ("cpu", "vulkan"):
        path = tmp_path / f"{device}.jsonl"
        result = edge_app(
            "run", "--device", device, "--fixed-bits", 8, "--max-frames", 12, "--jsonl", path
        )
        assert result.returncode == 0, result.stderr
        said = f"device vulkan:{vulkan.index}: {vulkan.name}"
        assert (said in result.stderr) == (device == "vulkan")
        seen[device] = [(r["label"], r["probability"]) for r in records(path)]
    assert len(seen["cpu"]) == 12 and seen["cpu"] == seen["vulkan"]


def test_auto_says_what_it_took_and_why(edge_app: Any, vulkan: Device) -> None:
    result = edge_app("run", "--device", "auto", "--max-frames", 2)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("device ")]
    assert vulkan.name in line
    assert line.startswith("device cpu: " if vulkan.software else "device vulkan:")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("vulkan:9", "--device vulkan:9: Vulkan has no device 9"),
        ("tpu", "'tpu' is no device; choose cpu, auto, vulkan or vulkan:N"),
    ],
)
def test_a_device_that_is_not_there_is_wrong_usage(
    edge_app: Any, device: str, message: str
) -> None:
    for command in (("run", "--max-frames", 1), ("bench", "digits")):
        result = edge_app(*command, "--device", device)
        assert result.returncode == 2
        assert message in result.stderr and "Traceback" not in result.stderr


# Opening the levels and trying them out submits some times; the frames come after that.
@pytest.mark.parametrize("fault", ["lost:48", "hang:48"])
def test_a_gpu_that_goes_away_is_replaced_and_said_once(
    edge_app: Any, faulty: dict[str, str], tmp_path: Path, fault: str
) -> None:
    path = tmp_path / "run.jsonl"
    options = ("--fixed-bits", 4, "--max-frames", 60, "--jsonl", path)
    result = edge_app("run", "--device", "vulkan", *options, env={**faulty, "VULKAN_FAULT": fault})
    assert result.returncode == 0, result.stderr
    assert len(records(path)) == 60
    assert result.stderr.count("going on on the CPU") == 1
    assert "device_lost" in result.stderr
    undisturbed = tmp_path / "cpu.jsonl"
    edge_app("run", "--fixed-bits", 4, "--max-frames", 60, "--jsonl", undisturbed)
    pairs = zip(records(path), records(undisturbed), strict=True)
    assert all(a["label"] == b["label"] for a, b in pairs)


class Heard:
    """What a pipeline and a governor are told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.profiles: list[Profile] = []
        self.policy = load_policy(None)

        self.level, self.slowdown = 6, 1.0
        self.levels: Readiness | None = None

    def noticed(self, event: Event) -> None:
        self.events.append(event)

    def switch(self, model: Program, branches: object, levels: Readiness | None) -> None:
        self.levels = levels

    def replace_profile(self, profile: Profile) -> None:
        self.profiles.append(profile)


def test_the_governor_is_told_what_levels_take_on_the_cpu() -> None:
    heard: Any = Heard()
    with open_model("digits") as model:
        watch_device(model, heard, heard, RunOptions())
        assert model.on_device_lost is not None
        model.on_device_lost("the GPU fell out")
        (event,) = heard.events
        assert event.kind == "device_lost"
        assert event.text == "the GPU fell out; going on on the CPU"
        (profile,) = heard.profiles
        assert set(profile.seconds) == set(model.levels)
        assert min(profile.seconds.values()) > 0
        # The level that runs was measured and can go on; others are prepared when they are wanted.
        assert profile.estimated == {2, 4, 8}
        assert heard.levels.nearest(6) == 6


def test_bench_times_a_gpu_beside_the_cpu(edge_app: Any, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    result = edge_app("bench", "digits", "--device", "vulkan", "--rounds", 2, "--json", path)
    assert result.returncode == 0, result.stderr
    report = json.loads(path.read_text())
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    (network,) = report["networks"]
    devices = {row["side"]: row["device"] for row in network["sides"]}
    assert devices["8 bits"].startswith("vulkan:") and devices["8 bits, CPU"] == "cpu"
    for row in network["sides"]:
        assert (row["roofline_percent"] is None) == (row["device"] != "cpu")
        assert (row["gpu"] is None) == (row["device"] == "cpu")
        assert row["gpu"] is None or row["gpu"]["submits_per_frame"] == 1
    assert result.stdout.count("1 submit a frame") == 4


def test_bench_does_not_time_the_cpu_for_a_gpu(edge_app: Any, faulty: dict[str, str]) -> None:
    result = edge_app(
        "bench", "digits", "--device", "vulkan", env={**faulty, "VULKAN_FAULT": "lost:30"}
    )
    assert result.returncode == 1
    assert "the device was lost; its times are of no use" in result.stderr


def test_doctor_lists_gpus_and_what_auto_takes(
    edge_app: Any, vulkan: Device, tmp_path: Path
) -> None:
    result = edge_app("doctor")
    gpus = result.stdout.split("GPUs")[1].split("Cameras")[0]
    assert vulkan.name in gpus and f"Vulkan {vulkan.version}, driver {vulkan.driver}" in gpus
    assert "integer products" in gpus or "8-bit products" in gpus
    assert "--device auto" in gpus
    nothing = str(tmp_path / "nothing.json")
    result = edge_app("doctor", env={"VK_ICD_FILENAMES": nothing, "VK_DRIVER_FILES": nothing})
    gpus = result.stdout.split("GPUs")[1].split("Cameras")[0]
    assert "no driver is installed that fits" in gpus
    assert "PROBLEM" not in gpus


def test_doctor_says_that_a_device_cannot_measure(edge_app: Any, faulty: dict[str, str]) -> None:
    clockless = {**faulty, "EDGE_VULKAN_CONV": "", "VULKAN_FAULT": "clockless"}
    assert "no clock: convolutions stay direct" in edge_app("doctor", env=clockless).stdout
    assert "no clock" not in edge_app("doctor", env=faulty).stdout
    result = edge_app("run", "--device", "vulkan", "--max-frames", 2, env=clockless)
    assert result.returncode == 0, result.stderr
    assert "without a clock its convolutions stay direct" in result.stderr


def test_a_convolution_that_there_is_not_is_wrong_usage(edge_app: Any) -> None:
    result = edge_app(
        "run", "--device", "vulkan", "--max-frames", 1, env={"EDGE_VULKAN_CONV": "f4x4"}
    )
    assert result.returncode == 2
    assert "'f4x4' is none of direct, f2x2, direct-4x8" in result.stderr
