"""What the tests of several rooms share."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest

if TYPE_CHECKING:
    from export.integer import IntegerNetwork


# `pytest --hypothesis-profile=soak tests/edge_app/test_invariants.py` looks far longer than a test
# run may; `mutation` is what packaging/mutation.py runs thousands of times.
hypothesis.settings.register_profile("soak", max_examples=2000, print_blob=True)
hypothesis.settings.register_profile(
    "mutation", max_examples=30, derandomize=True, database=None, deadline=None
)


def make_random_network(
    seed: int,
    widths: tuple[int, ...] = (8, 16),
    selection: dict[int, tuple[int, ...]] | None = None,
    input_size: tuple[int, int] = (8, 8),
    classes: int = 5,
) -> IntegerNetwork:
    """An integer network of random codes whose activations keep using their whole range.

    Scales follow the accumulators' size, some are negative, and channel counts need not be
    multiples of 4 or 16. One block for each width; all but the first halve height and width.
    """
    from export import integer

    random = np.random.default_rng(seed)
    selection = selection or {2: (1,), 4: (2, 3), 6: (2, 3, 4), 8: (1, 2, 3, 4)}

    def floats(*shape: int, low: float = -1.0, high: float = 1.0) -> Any:
        return random.uniform(low, high, shape).astype(np.float32)

    def shapes() -> list[tuple[int, int, int]]:
        ins = (widths[0], *widths[:-1])
        return [
            (i, o, 1 if n == 0 else 2) for n, (i, o) in enumerate(zip(ins, widths, strict=True))
        ]

    branches = sorted({branch for members in selection.values() for branch in members})
    codes: dict[tuple[int, int, str], Any] = {}
    for branch in branches:
        for index, (inputs, outputs, stride) in enumerate(shapes()):
            for name, side, channels in (("conv1", 3, inputs), ("conv2", 3, outputs)):
                shape = (outputs, side, side, channels)
                codes[branch, index, name] = random.integers(0, 4, shape, dtype=np.uint8)
            if stride != 1 or inputs != outputs:
                shape = (outputs, 1, 1, inputs)
                codes[branch, index, "shortcut"] = random.integers(0, 4, shape, dtype=np.uint8)

    def convolution(
        key: tuple[int, int, str], bits: int, target: float, offset: float, stride: int
    ) -> integer.Convolution:
        weight = codes[key]
        outputs, side, _, inputs = weight.shape
        # Standard deviation of an accumulator whose activations spread over their range.
        spread = np.sqrt(5 * side * side * inputs) * (2**bits - 1) / 2
        sign = np.where(random.random(outputs) < 0.2, -1, 1)
        scale = (floats(outputs, low=0.5, high=1.5) * sign * target / spread).astype(np.float32)
        bias = offset + target * floats(outputs, low=-0.3, high=0.3)
        return integer.Convolution(weight, scale, bias, stride, side // 2)

    def quantizer(bits: int) -> integer.StreamQuantizer:
        highest = 2**bits - 1
        lower, upper = random.uniform(-0.2, 0.2), random.uniform(1.5, 2.5)
        step = highest / (upper - lower)
        return integer.StreamQuantizer(
            float(np.float32(step)), float(np.float32(-lower * step)), highest
        )

    levels = {}
    for bits, members in selection.items():
        highest = 2**bits - 1
        bodies = []
        for branch in members:
            blocks = []
            for index, (inputs, outputs, stride) in enumerate(shapes()):
                shortcut = None
                if stride != 1 or inputs != outputs:
                    key = (branch, index, "shortcut")
                    shortcut = integer.Shortcut(
                        quantizer(bits), convolution(key, bits, 1.0, 0.5, stride)
                    )
                conv1 = convolution(
                    (branch, index, "conv1"), bits, highest / 2, highest / 2, stride
                )
                conv2 = convolution((branch, index, "conv2"), bits, 1.0, 0.0, 1)
                lowest = int(random.integers(0, 2))
                blocks.append(
                    integer.Block(quantizer(bits), conv1, lowest, highest, conv2, shortcut)
                )
            bodies.append(tuple(blocks))
        levels[bits] = integer.Level(bits, members, tuple(bodies))
    return integer.IntegerNetwork(
        stems=(
            integer.IntegerStem(
                weight=random.integers(-32767, 32768, (widths[0], 3, 3, 3)).astype(np.int16),
                scale=floats(widths[0], low=0.5, high=2.0) * np.float32(1e-7),
                bias=floats(widths[0]),
                pad_value=random.integers(0, 256, 3).astype(np.uint8),
                stride=1,
                pad=1,
            ),
        ),
        levels=levels,
        head=integer.Head(floats(classes, widths[-1]), floats(classes)),
        input_size=input_size,
        labels=tuple(f"class{n}" for n in range(classes)),
    )


@pytest.fixture(scope="session", autouse=True)
def directories_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a user keeps (policies, profiles, the governor's state) is read or written."""
    kinds = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
    before = dict(os.environ)
    for kind in kinds:
        os.environ[kind] = str(tmp_path_factory.mktemp(kind.lower(), numbered=False))
    for name in before:
        if name.startswith("EDGE_APP_POLICY"):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def random_network() -> Callable[..., IntegerNetwork]:
    """`make_random_network`, for rooms that need some network but no trained one."""
    return make_random_network


VULKAN_PACKAGES = (
    "libvulkan-dev mesa-vulkan-drivers vulkan-validationlayers glslang-tools spirv-tools"
)


@pytest.fixture(scope="session")
def vulkan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A device that computes, whose compiled shaders stay out of the user's cache.

    Continuous integration installs one, so that there a missing one is a failure.
    """
    import native_ops

    try:
        usable = [device for device in native_ops.vulkan_devices() if not device.problem]
        problem = "" if usable else "no device computes"
        if shutil.which("spirv-val") is None:
            problem = "spirv-val is not installed"
    except native_ops.DeviceError as error:
        problem = str(error)
    if problem:
        reason = f"{problem}; on Debian or Ubuntu: apt-get install {VULKAN_PACKAGES}; touch CMakeLists.txt; make setup"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", folder)
        # Mesa's own, also for tests that begin with an empty one of ours: it compiles for seconds.
        patch.setenv("MESA_SHADER_CACHE_DIR", folder)
        yield usable[0]


@pytest.fixture(scope="session")
def faulty(vulkan: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of processes that find a Vulkan in which VULKAN_FAULT can break something."""
    folder = tmp_path_factory.mktemp("faulty")
    source = Path(__file__).parents[1] / "native_ops" / "tests" / "vulkan_faults.cpp"
    library = folder / "libvulkan.so.1"
    command = ["g++", "-std=c++20", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", library, source]
    subprocess.run([*command, "-ldl"], check=True)
    # vulkan_devices() has loaded the real one.
    maps = Path("/proc/self/maps").read_text().splitlines()
    (real,) = {line.split()[-1] for line in maps if "/libvulkan.so" in line}
    # Nothing is measured, so that a fault comes where a test counts it to.
    return {
        "LD_LIBRARY_PATH": str(folder),
        "VULKAN_BEHIND": real,
        "EDGE_VULKAN_CONV": "direct",
    }
