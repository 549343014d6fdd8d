"""Every kernel of this CPU against plain arithmetic, with and without sanitizers.

The comparison is a C++ program (native_ops/tests), so that it also runs where Python does not.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "native_ops" / "tests"

pytestmark = pytest.mark.slow


def build(folder: Path, *options: str) -> Path:
    """The path of kernel_check, built in `folder`."""
    cmake = [sys.executable, "-m", "cmake"]
    jobs = str(os.cpu_count() or 1)
    for command in (
        [*cmake, "-S", str(SOURCE), "-B", str(folder), *options],
        [*cmake, "--build", str(folder), "--parallel", jobs],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "kernel_check"


def run(program: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def verdicts(output: str) -> dict[tuple[str, str], str]:
    """What a run says of each kernel of each table."""
    lines = [line for line in output.splitlines() if " cases  " in line]
    return {(line.split()[0], line.split()[1]): line.split(" cases  ")[1] for line in lines}


def listed(output: str) -> set[tuple[str, str]]:
    """Table and kernel of each line of --list."""
    return {(table, kernel) for table, kernel in map(str.split, output.splitlines())}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("sanitized"), "-DKERNEL_CHECK_SANITIZE=ON")


def test_kernels_match_plain_arithmetic(plain: Path) -> None:
    done = run(plain)
    assert done.returncode == 0, done.stdout + done.stderr
    found = verdicts(done.stdout)
    assert set(found) == listed(run(plain, "--list").stdout)
    assert set(found.values()) == {"ok"}


def test_kernels_stay_inside_their_memory(sanitized: Path) -> None:
    done = run(sanitized, "--quick", "--seed", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(verdicts(done.stdout)) == listed(run(sanitized, "--list").stdout)


def test_a_wrong_kernel_would_be_found(plain: Path) -> None:
    done = run(plain, "--quick", "--self-test")
    assert done.returncode == 1, done.stdout + done.stderr
    assert set(verdicts(done.stdout).values()) == {"WRONG"}
    assert "FAIL portable u8s2_conv_direct" in done.stdout


def test_one_table_and_one_kernel(plain: Path) -> None:
    done = run(plain, "--quick", "--isa", "portable", "--kernel", "dwconv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(verdicts(done.stdout)) == {("portable", "u8s2_dwconv_direct_1x16__portable")}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--isa", "abacus"], 2, "no such table"),
        (["--kernel", "abacus"], 1, "no kernel of that name"),
        (["--tables"], 2, "usage"),
    ],
)
def test_wrong_arguments(plain: Path, arguments: list[str], code: int, message: str) -> None:
    done = run(plain, *arguments)
    assert done.returncode == code
    assert message in done.stdout + done.stderr
