"""Levels on several threads under ThreadSanitizer, which finds what two threads do at once.

What runs is a C++ program (native_ops/tests/engine_check.cpp) on the plans of real levels.
"""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export import delegate, integer, program

SOURCE = Path(__file__).resolve().parents[2] / "native_ops" / "tests"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine_check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("races")
    cmake = [sys.executable, "-m", "cmake"]
    jobs = str(os.cpu_count() or 1)
    for command in (
        [*cmake, "-S", str(SOURCE), "-B", str(folder), "-DENGINE_CHECK_SANITIZE=ON"],
        [*cmake, "--build", str(folder), "--target", "engine_check", "--parallel", jobs],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "engine_check"


def write(planner: delegate.Planner, path: Path) -> Path:
    """A plan and the constants of its keys, each after its length."""
    pieces = [planner.plan.encode(), *(planner.shared[key] for key in planner.plan.keys)]
    path.write_bytes(b"".join(struct.pack("<Q", len(piece)) + piece for piece in pieces))
    return path


def test_threads_do_not_race(
    random_network: Callable[..., integer.IntegerNetwork],
    engine_check: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planners: list[delegate.Planner] = []

    class Kept(delegate.Planner):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            planners.append(self)

    monkeypatch.setattr(delegate, "Planner", Kept)
    network = random_network(3, widths=(12, 20))
    packed = program.pack_weights(network)
    modules = {f"bits{b}": program.LevelModule(network, b, packed) for b in network.levels}
    program.lower_modules(modules, (8, 8), {})
    files = [write(kept, tmp_path / str(i)) for i, kept in enumerate(planners)]
    assert len(files) == len(network.levels)
    command = [str(engine_check), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unexpected memory mapping" in done.stderr:
        # Addresses are random in more bits than this ThreadSanitizer knows.
        command = ["setarch", "--addr-no-randomize", *command]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout and "ThreadSanitizer" not in done.stderr
    lines = [line for line in done.stdout.splitlines() if "threads" in line]
    assert any("branches: ok" in line for line in lines)
    assert any("tiles: ok" in line for line in lines)
