"""The ARM kernels, cross-built and run on emulated CPUs, and their loops on models of real cores."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ARM = Path(__file__).resolve().parents[2] / "native_ops" / "tests" / "arm"
# The best table of each.
CPUS = {"cortex-a53": "neon", "cortex-a72": "neon", "cortex-a76": "neondot", "max": "neoni8mm"}

pytestmark = [pytest.mark.arm, pytest.mark.slow]


def missing(reason: str) -> None:
    """Continuous integration installs the tools, so that there a missing one is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def step(*arguments: str) -> "subprocess.CompletedProcess[str]":
    # The environment's own cmake need not be on the path.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        [ARM / "run.sh", *arguments],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )


def output_of(done: "subprocess.CompletedProcess[str]") -> str:
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> str:
    tools = step("tools")
    if tools.returncode == 3:
        missing(tools.stderr.strip())
    assert tools.returncode == 0, output_of(tools)
    folder = str(tmp_path_factory.mktemp("arm") / "build")
    done = step("build", folder)
    assert done.returncode == 0, output_of(done)
    return folder


def test_instructions_stay_in_their_translation_units(build: str) -> None:
    done = step("separate", build)
    assert done.returncode == 0, output_of(done)


@pytest.mark.parametrize("cpu", CPUS)
def test_a_cpu_is_offered_what_it_can_run(build: str, cpu: str) -> None:
    done = step("dispatch", build, cpu)
    assert done.returncode == 0, output_of(done)


@pytest.mark.parametrize("cpu", CPUS)
def test_kernels_match_plain_arithmetic(build: str, cpu: str) -> None:
    done = step("check", build, cpu, "--quick", "--isa", CPUS[cpu])
    assert done.returncode == 0, output_of(done)


def test_a_wrong_kernel_would_be_found(build: str) -> None:
    done = step("check", build, "max", "--quick", "--isa", "neoni8mm", "--self-test")
    assert done.returncode == 1, output_of(done)


def test_a_table_that_the_cpu_lacks_cannot_be_asked_for(build: str) -> None:
    done = step("check", build, "cortex-a53", "--quick", "--isa", "neondot")
    assert done.returncode != 0, output_of(done)


@pytest.fixture(scope="module")
def loops() -> dict[tuple[str, str], dict[str, float]]:
    """Records of mca.py by core and loop."""
    done = subprocess.run(
        [sys.executable, ARM / "mca.py", "--json"], capture_output=True, text=True
    )
    if done.returncode == 3:
        missing(done.stderr.strip())
    assert done.returncode == 0, output_of(done)
    return {(record["core"], record["kernel"]): record for record in json.loads(done.stdout)}


@pytest.mark.parametrize("loop", ["neondot_direct_4x16", "neondot_f2x2_4x8"])
def test_dot_product_loops_come_near_the_peak(
    loops: dict[tuple[str, str], dict[str, float]], loop: str
) -> None:
    assert loops["cortex-a76", loop]["percent_of_peak"] >= 70


def test_counting_bits_beats_multiplying_without_a_dot_product(
    loops: dict[tuple[str, str], dict[str, float]],
) -> None:
    multiplying = loops["cortex-a72", "neon_smlal_4x4"]["macs_per_cycle"]
    assert loops["cortex-a72", "neon_cnt_u2_1x4"]["macs_per_cycle"] >= 1.6 * multiplying


def test_tools_are_named_where_they_are_missing(tmp_path: Path) -> None:
    for tool in ("bash", "dirname"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    done = subprocess.run(
        [tmp_path / "bash", ARM / "run.sh", "tools"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "apt-get install g++-aarch64-linux-gnu qemu-user-static cmake" in done.stderr
