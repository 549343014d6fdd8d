"""`edge-app doctor`: what this machine offers, and what start-up costs on it, measured."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from edge_app.errors import EXIT_OK, EXIT_USAGE, AppError

HELP_LIMIT_S = 0.3
FIRST_RESULT_LIMIT_S = 1.5
MEMORY_LIMIT_MIB = 150.0
PROBE_FRAMES = 30
PROBE_TIMEOUT_S = 60.0


def examine(sysroot: Path) -> int:
    """Print the examination to stdout; the exit code is that of the worst problem found."""
    if not sysroot.exists():
        raise AppError(f"--sysroot {sysroot}: no such directory or recording", EXIT_USAGE)
    _section("Program")
    _line("edge-app", f"{version('edge-app')}, Python {platform.python_version()}")
    _line("machine", f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs for this process")
    _kernels()
    _section("Models")
    _models()
    _section("GPUs")
    _devices()
    _section("Cameras")
    _cameras(sysroot)
    _section("What the governor sees")
    _sensors(sysroot)
    _section("Start-up, measured in new processes")
    return _startup()


def _section(title: str) -> None:
    print(f"\n{title}", flush=True)


def _line(what: str, finding: str) -> None:
    print(f"  {what:<22} {finding}", flush=True)


def _kernels() -> None:
    import native_ops

    available = ", ".join(native_ops.isa_available())
    try:
        details = native_ops.version_info()
    except ValueError as error:  # EDGE_NATIVE_ISA names what this CPU has not
        raise AppError(str(error), EXIT_USAGE) from None
    _line("kernels", f"{details.pop('isa')} in use; available: {available}")
    for name in native_ops.kernel_names(native_ops.isa_selected()):
        _line("", name)
    _line("runtime", ", ".join(f"{key} {value}" for key, value in details.items()))


def _devices() -> None:
    import native_ops
    from native_ops.devices import AUTO, CPU, choose

    try:
        found = native_ops.vulkan_devices()
    except native_ops.DeviceError as error:
        found = ()
        _line("none", str(error))
    for device in found:
        product = "packed 8-bit products" if device.packed_product else "plain integer products"
        kind = ", software" if device.software else ""
        clock = "" if device.clock else ", no clock: convolutions stay direct"
        can = f"can not run models: {device.problem}" if device.problem else product + clock
        about = f"Vulkan {device.version}, driver {device.driver}{kind}; {can}"
        _line(f"vulkan:{device.index}", f"{device.name}; {about}")
    chosen = choose(AUTO)
    where = CPU if chosen.index is None else f"vulkan:{chosen.index}"
    _line("--device auto", where if not found else f"{where}: {chosen.reason}")


def _models() -> None:
    from edge_app.inspection import accuracies
    from edge_app.models import installed, open_model

    known = installed()
    if not known:
        _line("none", "PROBLEM: no model is installed; run needs --model FILE.pte")
    for name, path in known.items():
        try:
            with open_model(str(path)) as program:
                _line(name, f"accuracy by bits {accuracies(program.metadata)}")
        except AppError as error:
            _line(name, f"PROBLEM: {error.message}")


def _cameras(sysroot: Path) -> None:
    from edge_app.sources.cameras import examine as examine_cameras

    found = examine_cameras(sysroot)
    if not found:
        _line("none", "no /dev/videoN; run --camera also takes files, directories and addresses")
    for camera in found:
        held = f"; open in {', '.join(camera.holders)}" if camera.holders else ""
        problem = f"; PROBLEM: {camera.problem}" if camera.problem else ""
        _line(str(camera.path), camera.name + held + problem)


def _sensors(sysroot: Path) -> None:
    from edge_app.clock import RealClock
    from edge_app.recordings import open_root
    from edge_app.sensors import Quality, SysfsSensors
    from edge_app.sensors.guard import GuardedSensors

    clock = RealClock()
    sensors = GuardedSensors(SysfsSensors(open_root(sysroot, clock), clock), clock)
    sensors.sample()
    absent, broken = [], []
    for status in sensors.describe():
        _line(status.name, f"{status.quality.value:<12} {status.what}: {status.detail}")
        if status.quality is Quality.ABSENT:
            absent.append(status.name)
        elif status.quality is not Quality.OK:
            broken.append(status.name)
    _line("not on this device", ", ".join(absent) if absent else "nothing that it looks for")
    if broken:
        _line("PROBLEM", f"there, but not to be trusted: {', '.join(broken)}")


@dataclass(frozen=True)
class Startup:
    """Seconds to the first result, and peak resident memory in MiB after some frames."""

    first_result_s: float
    peak_mib: float


def measure_help() -> float:
    """Seconds that ``edge-app --help`` takes, best of three: the rest is other programs' doing."""
    times = []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "edge_app", "--help"],
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=PROBE_TIMEOUT_S,
        )
        times.append(time.monotonic() - started)
    return min(times)


def measure_run() -> Startup:
    """Start ``edge-app run`` and watch its records come. AppError with its message if it fails."""
    command = [sys.executable, "-m", "edge_app", "run", "--jsonl", "-"]
    command += ["--max-frames", str(PROBE_FRAMES)]
    with tempfile.TemporaryFile("w+") as messages:
        started = time.monotonic()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=messages, stdin=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            first_result_s = time.monotonic() - started
            peak_mib = 0.0
            while first and process.stdout.readline():
                peak_mib = peak_memory_mib(process.pid) or peak_mib
        if process.returncode != 0 or not first:
            messages.seek(0)
            last = messages.read().strip().splitlines()[-1:] or ["no message"]
            raise AppError(f"edge-app run failed: {last[0]}", process.returncode or 1)
    return Startup(first_result_s, peak_mib)


def peak_memory_mib(pid: int) -> float | None:
    """Peak resident memory of a process since its exec, from the kernel; None once it is gone.

    Not ``getrusage``: that counts what the parent occupied before the exec.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None


def _startup() -> int:
    help_s = measure_help()
    _line("edge-app --help", _against(help_s, HELP_LIMIT_S, "s"))
    try:
        startup = measure_run()
    except AppError as error:
        _line("edge-app run", f"PROBLEM: {error.message}")
        return error.exit_code
    _line("first result", _against(startup.first_result_s, FIRST_RESULT_LIMIT_S, "s"))
    _line("resident memory", _against(startup.peak_mib, MEMORY_LIMIT_MIB, "MiB"))
    return EXIT_OK


def _against(value: float, limit: float, unit: str) -> str:
    verdict = "ok" if value <= limit else "TOO MUCH"
    return f"{value:.3g} {unit} ({verdict}; the limit is {limit:g} {unit})"
