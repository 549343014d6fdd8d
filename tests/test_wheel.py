"""The wheels that devices install: alone in an empty environment, and on an emulated ARM board."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from native_ops import _native

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "packaging" / "wheel.sh"
SCHEMA = ROOT / "edge_app" / "assets" / "schema" / "frame.schema.json"

MEGABYTE = 10**6
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LEVELS = (2, 4, 6, 8)
FRAMES = 24
# By what qemu calls them: the best instruction set of a Raspberry Pi 4, a Raspberry Pi 5 and a
# processor that has all there is.
ARM_CPUS = {"cortex-a72": "neon", "cortex-a76": "neondot", "max": "neoni8mm"}
# What an aarch64 interpreter and the packages in it load.
ARM_PACKAGES = (
    f"python{PYTHON}-minimal libpython{PYTHON}-minimal libpython{PYTHON}-stdlib libc6 libgcc-s1"
    " libstdc++6 libbz2-1.0 libexpat1 libffi8 liblzma5 libssl3 libuuid1 zlib1g"
).split()
# Of time, temperature, battery and load, and of what the governor makes of them.
FIELDS_OF_THE_MACHINE = {
    "t", "mono_ns", "latency_ms", "temperature_c", "battery", "governor_time_s", "ceiling_bits",
}  # fmt: skip

# Runs where only the wheel and its dependencies are: edge-app at every level, then the logits.
RUNS = """
import sys
from pathlib import Path

import numpy as np
from edge_app.cli import main

output, frames, levels = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
for bits in levels:
    records = str(output / (bits + ".jsonl"))
    sys.argv = ["edge-app", "run", "--fixed-bits", bits, "--max-frames", frames]
    sys.argv += ["--jsonl", records]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (bits, end.code)

import native_ops
from edge_app.models import find

random = np.random.default_rng(7)
logits = {}
for name in ("digits", "cifar10-resnet20"):
    with native_ops.Program.open(find(name)) as program:
        images = random.integers(0, 256, (4, *program.input_shape), dtype=np.uint8)
        for bits in levels:
            logits[f"{name} {bits}"] = np.stack([program.run(int(bits), i) for i in images])
np.savez(output / "logits.npz", **logits)
(output / "isa").write_text(native_ops.isa_selected())
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="compares ARM with x86"),
]


def missing(reason: str) -> None:
    """Continuous integration installs the tools, so that there a missing one is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def succeed(
    *command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(architecture: str, folder: Path) -> Path:
    tools = subprocess.run([SCRIPT, "tools", architecture], capture_output=True, text=True)
    if tools.returncode == 3:
        missing(tools.stderr.strip())
    printed = succeed(SCRIPT, architecture, folder, env={**os.environ, "PYTHON": sys.executable})
    (wheel,) = map(Path, printed.splitlines())
    return wheel


@pytest.fixture(scope="module")
def x86_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel("x86_64", tmp_path_factory.mktemp("x86_64"))


@pytest.fixture(scope="module")
def arm_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel("aarch64", tmp_path_factory.mktemp("aarch64"))


# --- in an empty environment -------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(x86_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Executables of an environment with the wheel and what it depends on, nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    interpreter = folder / "bin" / "python"
    succeed(sys.executable, "-m", "pip", "--python", interpreter, "install", "--quiet", x86_wheel)
    yield folder / "bin"
    shutil.rmtree(folder)  # Hundreds of megabytes.


def clean() -> dict[str, str]:
    """The environment variables without those that Python and the program read."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "EDGE_"))
    }


def test_nothing_of_training_comes_along(environment: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util as util\n"
        "names = ['torch', 'executorch', 'torchao', 'pip']\n"
        "print([name for name in names if util.find_spec(name)])\n"
        "import edge_app, native_ops\n"
        "print(edge_app.__file__, native_ops.__file__)\n"
        "print(*{line.split()[-1] for line in open('/proc/self/maps') if 'executorch' in line})"
    )
    found, modules, libraries = succeed(
        environment / "python", "-c", code, env=clean(), cwd=tmp_path
    ).splitlines()
    assert found == "[]"
    packages = environment.parent / "lib" / f"python{PYTHON}" / "site-packages"
    assert all(packages in Path(path).parents for path in modules.split())
    loaded = {Path(path) for path in libraries.split()}
    folder = packages / "native_ops" / "lib"
    assert folder / "libexecutorch.so" in loaded
    assert {path.parent for path in loaded} == {folder}


def test_the_program_runs_in_an_empty_environment(environment: Path, tmp_path: Path) -> None:
    printed = succeed(
        environment / "edge-app", "run", "--max-frames", "5", "--jsonl", "-",
        env=clean(), cwd=tmp_path,
    )  # fmt: skip
    records = [json.loads(line) for line in printed.splitlines()]
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    for record in records:
        validator.validate(record)
    assert [record["seq"] for record in records] == [0, 1, 2, 3, 4]


@pytest.mark.vulkan
@pytest.mark.usefixtures("vulkan")
def test_shaders_travel_in_the_wheel(environment: Path, tmp_path: Path) -> None:
    """A device compiles nothing, and needs nothing but a driver."""
    code = (
        "import shutil, native_ops\n"
        "print(*native_ops._native.vulkan_shaders())\n"
        "from edge_app.models import find\n"
        "with native_ops.Program.open(find('digits'), device='vulkan') as program:\n"
        "    print(program.device)\n"
    )
    shaders, device = succeed(
        environment / "python", "-c", code, env=clean(), cwd=tmp_path
    ).splitlines()
    assert shaders.split() == list(_native.vulkan_shaders())
    assert device.startswith("vulkan:")


# --- what is in them ---------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["x86_64", pytest.param("aarch64", marks=pytest.mark.arm)])
def test_a_wheel_is_small_and_holds_what_runs(
    architecture: str, request: pytest.FixtureRequest
) -> None:
    wheel: Path = request.getfixturevalue(
        {"x86_64": "x86_wheel", "aarch64": "arm_wheel"}[architecture]
    )
    assert wheel.stat().st_size < 25 * MEGABYTE
    # manylinux: no library outside of the wheel but those of every system since glibc 2.36.
    tag = wheel.stem.split("-")[-1].split(".")[0]
    assert tag.startswith("manylinux_2_") and tag.endswith(f"_{architecture}")
    assert int(tag.removeprefix("manylinux_2_").split("_")[0]) <= 36

    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (extension,) = [name for name in names if name.startswith("native_ops/_native.c")]
        # e_machine of an ELF header.
        machines = {"x86_64": 62, "aarch64": 183}
        for name in (extension, "native_ops/lib/libexecutorch.so"):
            header = archive.read(name)[:20]
            assert header[:4] == b"\x7fELF"
            assert int.from_bytes(header[18:20], "little") == machines[architecture]
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        required = Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist") or []
    assert f"-{architecture}-linux-gnu.so" in extension
    assert {"edge_app/assets/models/digits.pte", "edge_app/cli.py"} <= names
    # The page of --serve, and what npm brought for it with its licence.
    brought = {"uPlot.iife.min.js", "uPlot.min.css", "LICENSE-uPlot"}
    assert {f"edge_app/serve/assets/{name}" for name in brought} <= names
    assert "edge_app/serve/static/page.html" in names
    assert not [name for name in names if name.endswith((".cpp", ".h", ".a", ".comp", ".glsl"))]
    always = [text for text in required if "extra ==" not in text]
    assert any(text.startswith("numpy") for text in always)
    assert not [text for text in always if "torch" in text]


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "uname"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    done = subprocess.run(
        [tmp_path / "bash", SCRIPT, "tools", "aarch64"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "apt-get install g++-aarch64-linux-gnu" in done.stderr


def test_a_missing_npm_is_named(tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "env"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    done = subprocess.run(
        [tmp_path / "bash", SCRIPT.parent / "ui" / "build.sh", "tools"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "apt-get install npm" in done.stderr


# --- on ARM ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arm_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with Debian's aarch64 CPython, taken from its packages without installing them."""
    if not shutil.which("qemu-aarch64-static"):
        missing("no qemu-aarch64-static; on Debian or Ubuntu: apt-get install qemu-user-static")
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        missing("the aarch64 interpreter comes from Debian's packages, and there is no apt-get")
    folder = tmp_path_factory.mktemp("arm")
    for name in ("lists/partial", "cache/archives/partial", "packages", "system"):
        (folder / name).mkdir(parents=True)
    # As if on an ARM board on which nothing is installed, so that this machine's lists stay.
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Dir::State": folder,
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder / "cache",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    for arguments in (["update"], ["download", *ARM_PACKAGES]):
        done = subprocess.run(
            [*apt, *arguments], cwd=folder / "packages", capture_output=True, text=True
        )
        if done.returncode:
            missing(f"no aarch64 CPython {PYTHON}:\n{done.stdout}{done.stderr}")
    for package in (folder / "packages").glob("*.deb"):
        succeed("dpkg-deb", "-x", package, folder / "system")
    yield folder / "system"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def arm_site(arm_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the wheel and what it depends on, as pip would choose it on Debian 12."""
    folder = tmp_path_factory.mktemp("site")
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, 37)]
    succeed(
        sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, *platforms,
        "--platform=manylinux2014_aarch64", "--implementation=cp", f"--python-version={PYTHON}",
        "--only-binary=:all:", arm_wheel,
    )  # fmt: skip
    yield folder
    shutil.rmtree(folder)


def results(output: Path) -> tuple[dict[int, list[dict[str, Any]]], dict[str, Any]]:
    """By level, the records of the frames without the machine's own fields; and the logits."""
    records = {}
    for bits in LEVELS:
        lines = (output / f"{bits}.jsonl").read_text().splitlines()
        parsed = [json.loads(line) for line in lines]
        records[bits] = [
            {key: value for key, value in record.items() if key not in FIELDS_OF_THE_MACHINE}
            for record in parsed
        ]
    with np.load(output / "logits.npz") as logits:
        return records, dict(logits)


@pytest.fixture(scope="module")
def x86_results(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("x86")
    arguments = [str(output), str(FRAMES), *map(str, LEVELS)]
    succeed(environment / "python", "-c", RUNS, *arguments, env=clean(), cwd=output)
    return results(output)


@pytest.mark.arm
@pytest.mark.parametrize("cpu", ARM_CPUS)
def test_an_arm_board_gives_the_same_records_and_logits(
    cpu: str, arm_system: Path, arm_site: Path, x86_results: Any, tmp_path: Path
) -> None:
    interpreter = arm_system / "usr" / "bin" / f"python{PYTHON}"
    arguments = [str(tmp_path), str(FRAMES), *map(str, LEVELS)]
    succeed(
        "qemu-aarch64-static", "-cpu", cpu, "-L", arm_system, interpreter, "-c", RUNS, *arguments,
        env={**clean(), "PYTHONPATH": str(arm_site)}, cwd=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "isa").read_text() == ARM_CPUS[cpu]

    expected_records, expected_logits = x86_results
    records, logits = results(tmp_path)
    for bits in LEVELS:
        assert len(expected_records[bits]) == FRAMES
        for record, expected in zip(records[bits], expected_records[bits], strict=True):
            # numpy's exponential may differ by a unit in the last place, and the record rounds it.
            expected = {**expected, "probability": pytest.approx(expected["probability"], abs=2e-6)}
            assert record == expected
    assert set(logits) == set(expected_logits)
    for name, expected in expected_logits.items():
        assert np.ptp(expected) > 0
        np.testing.assert_array_equal(logits[name], expected, err_msg=name, strict=True)
