"""What happens where there is no GPU, or none that can be used, or one that goes away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from vulkan_plans import Maker

from native_ops import _native, container

pytestmark = [pytest.mark.vulkan, pytest.mark.usefixtures("vulkan")]

MODEL = Path(__file__).parents[2] / "edge_app" / "assets" / "models" / "digits.pte"

OPEN = """
import sys
import native_ops

for device in ("vulkan", "auto"):
    try:
        with native_ops.Program.open(sys.argv[1], device=device) as program:
            print(device, program.device, program.device_reason)
    except native_ops.DeviceError as error:
        print(device, "DeviceError", error)
"""

RUN = """
import sys
import numpy as np
import native_ops

random = np.random.default_rng(0)
told = []
with native_ops.Program.open(sys.argv[1]) as cpu:
    with native_ops.Program.open(sys.argv[1], device="vulkan") as gpu:
        gpu.on_device_lost = told.append
        for frame in range(8):
            image = random.integers(0, 256, cpu.input_shape, dtype=np.uint8)
            bits = cpu.levels[frame % len(cpu.levels)]
            assert np.array_equal(cpu.run(bits, image), gpu.run(bits, image)), frame
            print(frame, gpu.device)
        print("told", len(told), *told)
        print("reason", gpu.device_reason)
"""


def say(code: str, environment: dict[str, str], *arguments: str | Path) -> list[str]:
    """Lines that a new process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def refused(environment: dict[str, str], message: str) -> None:
    """`vulkan` says why, in one line; `auto` runs on the CPU and says the same."""
    asked, automatic = say(OPEN, environment, MODEL)
    assert asked.startswith("vulkan DeviceError ") and message in asked
    assert automatic.startswith("auto cpu ")


def test_builds_without_a_compiler_of_shaders(tmp_path: Path) -> None:
    """They say what is missing, and link: everything that programs call is there."""
    source = Path(__file__).parents[2] / "native_ops" / "vulkan"
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(absent LANGUAGES CXX)\n"
        f"add_subdirectory({source} vulkan)\n"
        "add_executable(absent main.cpp)\ntarget_link_libraries(absent native_ops_vulkan)\n"
    )
    (tmp_path / "main.cpp").write_text(
        f'#include "{source}/vulkan.h"\n#include <cstdio>\n'
        "int main() {\n  try { mbq::vulkan::devices(); }\n"
        "  catch (const mbq::vulkan::DeviceError& e) { std::puts(e.what()); }\n"
        "  return mbq::vulkan::shader_code().size();\n}\n"
    )
    cmake = [sys.executable, "-m", "cmake"]
    configured = subprocess.run(
        [*cmake, "-S", tmp_path, "-B", tmp_path / "build", "-DGLSLANG="],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "built without Vulkan: glslangValidator not found" in configured.stdout
    subprocess.run([*cmake, "--build", tmp_path / "build"], capture_output=True, check=True)
    done = subprocess.run([tmp_path / "build" / "absent"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "this build has no Vulkan part" in done.stdout and "glslang-tools" in done.stdout


def test_without_vulkans_library(tmp_path: Path) -> None:
    (tmp_path / "libvulkan.so.1").write_text("nothing of the kind")
    refused({"LD_LIBRARY_PATH": str(tmp_path)}, "Vulkan's library does not load")


def test_without_a_driver(tmp_path: Path) -> None:
    nothing = str(tmp_path / "nothing.json")
    environment = {"VK_ICD_FILENAMES": nothing, "VK_DRIVER_FILES": nothing}
    refused(environment, "no driver is installed that fits")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("old", "has Vulkan 1.0.0, 1.1 is needed"),
        ("drawing", "does not compute, it only draws"),
        ("small", "the device binds at most 1024"),
        ("memory:1", "bytes: out of device memory"),
        ("memory:4", "bytes: out of device memory"),
        ("memory:9", "bytes: out of device memory"),
        ("lost:1", "the device was lost"),
        ("hang:2", "did not answer in time"),
    ],
)
def test_devices_that_cannot_be_used(faulty: dict[str, str], fault: str, message: str) -> None:
    refused({**faulty, "VULKAN_FAULT": fault}, message)


def test_auto_takes_a_gpu_unless_it_has_no_memory(faulty: dict[str, str]) -> None:
    gpu = {**faulty, "VULKAN_GPU": "1"}
    _, automatic = say(OPEN, gpu, MODEL)
    assert automatic.startswith("auto vulkan:0 ") and "is the first GPU" in automatic
    _, automatic = say(OPEN, {**gpu, "VULKAN_FAULT": "memory:3"}, MODEL)
    assert automatic.startswith("auto cpu ") and "out of device memory" in automatic


def test_what_is_asked_for_and_is_not_there() -> None:
    code = "import sys, native_ops; native_ops.Program.open(sys.argv[1], device='vulkan:7')"
    done = subprocess.run([sys.executable, "-c", code, MODEL], capture_output=True, text=True)
    assert "DeviceError: Vulkan has no device 7; it has 0" in done.stderr
    environment = {**os.environ, "EDGE_VULKAN_PRODUCT": "fast"}
    code = code.replace("vulkan:7", "vulkan")
    done = subprocess.run(
        [sys.executable, "-c", code, MODEL], env=environment, capture_output=True, text=True
    )
    assert "DeviceError: EDGE_VULKAN_PRODUCT: 'fast' is not packed or plain" in done.stderr


# Opening the levels submits and waits some times; the frames come after that.
@pytest.mark.parametrize(("fault", "message"), [("lost:13", "the device was lost"),
                                                ("hang:13", "did not answer in time")])  # fmt: skip
def test_a_lost_gpu_is_replaced_within_the_frame(
    faulty: dict[str, str], fault: str, message: str
) -> None:
    lines = say(RUN, {**faulty, "VULKAN_FAULT": fault}, MODEL)
    frames = [line.split()[1] for line in lines[:8]]
    lost = frames.index("cpu")
    assert 0 < lost < 8, "the fault has to come after some frames"
    assert frames == ["vulkan:0"] * lost + ["cpu"] * (8 - lost)
    assert lines[8].startswith("told 1 ") and message in lines[8]
    assert lines[9] == "reason " + lines[8].removeprefix("told 1 ")


def test_without_a_fault_nothing_is_replaced(faulty: dict[str, str]) -> None:
    lines = say(RUN, faulty, MODEL)
    assert [line.split()[1] for line in lines[:8]] == ["vulkan:0"] * 8
    assert lines[8] == "told 0"


FRAMES_WITHOUT_MEMORY = """
import os
import sys
import numpy as np
import native_ops

with native_ops.Program.open(sys.argv[1], device="vulkan") as gpu:
    image = np.zeros(gpu.input_shape, np.uint8)
    os.environ["VULKAN_FAULT"] = "memory"
    for bits in gpu.levels:
        gpu.run(bits, image)
        gpu.profile(bits, image)
    print(gpu.device)
    try:
        native_ops.Program.open(sys.argv[1], device="vulkan")
    except native_ops.DeviceError as error:
        print(error)
"""


def test_frames_allocate_nothing_on_the_device(faulty: dict[str, str]) -> None:
    device, refusal = say(FRAMES_WITHOUT_MEMORY, {**faulty, "EDGE_VULKAN_CONV": "f2x2"}, MODEL)
    assert device == "vulkan:0"
    assert "out of device memory" in refusal


@pytest.mark.parametrize("key", [0, 1, 2, 3, 4])
def test_constants_that_are_cut_short(key: int) -> None:
    """Weights of stem and convolution, the padding value, the head's weights and bias."""
    maker = Maker(1, 6, 6)
    stream, codes = maker.stem(8, 3, 1, 1, (15,), 1)
    maker.convolution(codes, 8, (3, 3), 1, 1, 15, "direct")
    maker.head([stream], 5, True)
    maker.built.plan.place()
    name = maker.built.plan.keys[key]
    whole = maker.built.constants[name]
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        maker.built.constants[name] = whole[:length]
        with pytest.raises(RuntimeError, match="a constant of the level"):
            _native.VulkanPlan(maker.built.plan.encode(), maker.built.constants)
    maker.built.constants[name] = whole
    _native.VulkanPlan(maker.built.plan.encode(), maker.built.constants)


def test_files_whose_named_data_are_cut_short(tmp_path: Path) -> None:
    """With a right seal: what is missing is found by the runtime, on a GPU as on the CPU."""
    program = bytes(container.verify(MODEL.read_bytes()))
    path = tmp_path / "cut.pte"
    for missing in (64, len(program) // 4, len(program) // 2):
        path.write_bytes(container.seal(program[:-missing]))
        code = f"""
import native_ops
try:
    native_ops.Program.open({str(path)!r}, device="vulkan")
    print("opened")
except native_ops.ModelError as error:
    print(error)
"""
        (line,) = say(code, {})
        assert line.startswith(f"{path}: ") and "export the model again" in line
