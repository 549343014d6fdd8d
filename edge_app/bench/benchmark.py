"""`edge-app bench`: how fast the levels of a model are here, also beside XNNPACK.

All sides run in this process, on the same CPUs, in turn: level, level, ..., XNNPACK, level, ... A
machine whose speed drifts, or that somebody else uses too, slows all of them. Each turn begins with a
call that is not timed, so that a side finds its own data in the caches, as it would alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_app.bench.memory import resident_bytes
from edge_app.bench.programs import Programs, macs_of, programs
from edge_app.errors import EXIT_BUG, EXIT_OK, EXIT_USAGE, AppError
from edge_app.models import branches_of, open_model

if TYPE_CHECKING:
    from native_ops import Program
    from native_ops.devices import DeviceStatistics

SCHEMA = "edge-app/benchmark/1"
WARM_UP = 5
BASELINE = "XNNPACK int8"
OTHER_SIDES = {BASELINE: "int8", "XNNPACK fp32": "fp32"}


@dataclass(frozen=True)
class BenchOptions:
    """As given on the command line."""

    model: str | None = None
    network: str | None = None
    size: int | None = None
    peers: bool = False
    programs: Path | None = None
    rounds: int = 100
    threads: int = 1
    cpus: str | None = None
    device: str = "cpu"
    layers: bool = False
    json: Path | None = None
    plot: Path | None = None
    etdump: Path | None = None


@dataclass(frozen=True)
class Side:
    """One column of the comparison.

    ``bits`` and ``branches`` are those of a level, None and () for the other side; ``macs`` is None
    where a model does not say it. ``device``: where it runs; ``statistics``: what a GPU's last frame
    took.
    """

    name: str
    call: Callable[[], object]
    file: Path
    macs: int | None
    bits: int | None = None
    branches: tuple[int, ...] = ()
    device: str = "cpu"
    statistics: Callable[[], DeviceStatistics] | None = None


def run(options: BenchOptions) -> int:
    """Measure, print the table to stdout, write what was asked for. AppError if it cannot."""
    from edge_app.bench.table import print_report

    cpus = chosen_cpus(options.cpus, options.threads)
    for output in (options.json, options.plot, options.etdump):
        if output is not None and not output.absolute().parent.is_dir():
            raise AppError(f"{output}: its folder does not exist", EXIT_USAGE)
    with ExitStack() as stack:
        # Before anything is pinned: building takes all CPUs that there are.
        found = programs(options, stack)
        if options.etdump is not None and len(found) != 1:
            raise AppError("--etdump: takes one network at a time", EXIT_USAGE)
        stack.enter_context(pinned(cpus))
        report = _header(options, cpus)
        for entry in found:
            report["networks"].append(_measure_network(entry, options, report["roofline_gmacs"]))
    print_report(report)
    if options.json is not None:
        _write(options.json, (json.dumps(report, indent=2) + "\n").encode())
    if options.plot is not None:
        from edge_app.plotting import plot_benchmark

        plot_benchmark(report, options.plot)
    return EXIT_OK


def chosen_cpus(wanted: str | None, threads: int) -> list[int]:
    """The CPUs to run on, one for each thread: the first of ``wanted`` ("0,2-3"), or of all that this
    process may use. AppError (exit code 2) if they are not there or not enough."""
    allowed = sorted(os.sched_getaffinity(0))
    chosen = allowed if wanted is None else _parse_cpus(wanted)
    if missing := [cpu for cpu in chosen if cpu not in allowed]:
        raise AppError(
            f"--cpus: this process may not use {missing}; choose from {allowed}", EXIT_USAGE
        )
    if len(chosen) < threads:
        raise AppError(f"--threads {threads}: only the CPUs {chosen} are there", EXIT_USAGE)
    return chosen[:threads]


def _parse_cpus(text: str) -> list[int]:
    cpus: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            cpus += range(int(first), int(last if dash else first) + 1)
    except ValueError:
        raise AppError(f"--cpus {text}: give numbers and ranges, as in 0,2-3", EXIT_USAGE) from None
    return sorted(set(cpus))


@contextmanager
def pinned(cpus: list[int]) -> Iterator[None]:
    """This thread and those that it starts run on these CPUs only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Times:
    """Nanoseconds of one side's calls, one for each round.

    ``cpu`` is what the process had of its CPUs meanwhile: without the pauses in which another process
    had them, and with every thread counted.
    """

    wall: npt.NDArray[np.int64]
    cpu: npt.NDArray[np.int64]


def measure(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """The times of one call of each side in each round, after some rounds that do not count."""
    times = {name: Times(np.zeros(rounds, np.int64), np.zeros(rounds, np.int64)) for name in sides}
    for number in range(-WARM_UP, rounds):
        for name, call in sides.items():
            call()
            cpu_started = time.process_time_ns()
            started = time.perf_counter_ns()
            call()
            took = time.perf_counter_ns() - started
            cpu_took = time.process_time_ns() - cpu_started
            if number >= 0:
                times[name].wall[number], times[name].cpu[number] = took, cpu_took
    return times


def _measure_network(entry: Programs, options: BenchOptions, roofline: float) -> dict[str, Any]:
    say(f"{entry.name}: {options.rounds} rounds")
    with ExitStack() as stack:
        model = stack.enter_context(
            open_model(str(entry.model), options.threads, device=options.device)
        )
        model.on_device_lost = _fail
        sides = _levels(model)
        if model.device != "cpu":
            say(f"device {model.device}: {model.device_reason}")
            beside = stack.enter_context(open_model(str(entry.model), options.threads))
            sides += _levels(beside, ", CPU")
        if entry.peers is not None:
            sides += _other_sides(entry.peers, options.threads)
        if not model.profile(model.levels[0], np.zeros(model.input_shape, np.uint8)):
            say(f"{entry.model}: runs operator by operator on reference kernels; export it again")
        times = measure({side.name: side.call for side in sides}, options.rounds)
        gpus = {side.name: _gpu(side.statistics()) for side in sides if side.statistics}
        layers = _layers(model) if options.layers else None
        if options.etdump is not None:
            _write(options.etdump, model.trace(np.zeros(model.input_shape, np.uint8)))
        height, width, _ = model.input_shape
        network = str(model.metadata.get("network", "?"))
    rows = [
        {**_row(side, times, roofline, options.threads), "gpu": gpus.get(side.name)}
        for side in sides
    ]
    result: dict[str, Any] = {
        "network": network,
        "model": str(entry.name),
        "input": [height, width],
        "sides": rows,
    }
    if layers is not None:
        result["layers"] = layers
    return result


def _fail(reason: str) -> None:
    """Times of a device that is gone halfway say nothing."""
    raise AppError(f"{reason}; its times are of no use", EXIT_BUG)


def _levels(model: Program, suffix: str = "") -> list[Side]:
    pixels = np.random.default_rng(0).integers(0, 256, model.input_shape, dtype=np.uint8)
    return [
        Side(
            f"{bits} bits{suffix}",
            lambda bits=bits: model.run(bits, pixels),  # type: ignore[misc]
            model.path,
            model.metadata["levels"][str(bits)].get("macs"),
            bits,
            branches,
            model.device,
            None if model.device == "cpu" else lambda bits=bits: model.device_statistics(bits),  # type: ignore[misc]
        )
        for bits, branches in branches_of(model).items()
    ]


def _other_sides(folder: Path, threads: int) -> list[Side]:
    from native_ops.peer import PeerError, PeerProgram, load_xnnpack

    macs = macs_of(folder)
    sides = []
    try:
        load_xnnpack(threads)
        for name, stem in OTHER_SIDES.items():
            program = PeerProgram.open(folder / f"{stem}.pte")
            image = np.random.default_rng(0).standard_normal(program.input_shape, np.float32)
            call = lambda program=program, image=image: program.run(image)  # noqa: E731
            sides.append(Side(name, call, program.path, macs))
    except PeerError as error:
        raise AppError(str(error), EXIT_USAGE) from None
    return sides


def _row(side: Side, times: dict[str, Times], roofline: float, threads: int) -> dict[str, Any]:
    own, baseline = times[side.name], times.get(BASELINE)
    wall, fastest = own.wall, int(own.wall.min())
    gmacs = None if side.macs is None else side.macs / fastest
    # The roofline is that of 8-bit integers; float32 has another.
    on_cpu = side.device == "cpu"
    integer = on_cpu and (side.name == BASELINE or side.bits is not None)
    return {
        "side": side.name,
        "device": side.device,
        "bits": side.bits,
        "branches": list(side.branches),
        "macs": side.macs,
        "median_us": float(np.median(wall)) / 1e3,
        "p90_us": float(np.percentile(wall, 90)) / 1e3,
        "min_us": fastest / 1e3,
        "cpu_median_us": float(np.median(own.cpu)) / 1e3,
        # Round by round: what slowed the machine slowed both.
        "ratio_to_int8": None if baseline is None else float(np.median(wall / baseline.wall)),
        "ratio_of_minima": None if baseline is None else fastest / int(baseline.wall.min()),
        "cpu_ratio_to_int8": None if baseline is None else _cpu_ratio(own, baseline),
        "gmacs": gmacs,
        "roofline_percent": 100 * gmacs / roofline if gmacs is not None and integer else None,
        "resident_bytes": resident_bytes(side.file, side.bits, threads) if on_cpu else None,
    }


def _gpu(statistics: DeviceStatistics) -> dict[str, Any]:
    """What a frame is made of on a GPU, of the last one."""
    return {
        "device_us": statistics.device_microseconds,
        "wait_us": statistics.fence_microseconds,
        "host_us": statistics.host_microseconds,
        "submits_per_frame": statistics.submits / statistics.frames,
        "uploaded_bytes": statistics.uploaded_bytes,
        "device_bytes": statistics.device_bytes,
    }


def _cpu_ratio(own: Times, baseline: Times) -> float:
    return float(np.median(own.cpu) / max(np.median(baseline.cpu), 1))


def _layers(model: Program) -> dict[str, list[dict[str, Any]]]:
    """Where each level spends its time, layer by layer; the fastest of some runs for each."""
    pixels = np.zeros(model.input_shape, np.uint8)
    profiles = {}
    for bits in model.levels:
        runs = [model.profile(bits, pixels) for _ in range(10)]
        profiles[str(bits)] = [
            {
                "branch": layer[0].branch,
                "layer": layer[0].layer,
                "kernel": layer[0].kernel,
                "microseconds": min(time.microseconds for time in layer),
                "macs": layer[0].macs,
            }
            for layer in zip(*runs, strict=True)
        ]
    if not any(profiles.values()):
        raise AppError(
            f"--layers: {model.path} runs operator by operator and has no profile of its layers;"
            " export it again",
            EXIT_USAGE,
        )
    return profiles


def _header(options: BenchOptions, cpus: list[int]) -> dict[str, Any]:
    import native_ops

    try:
        details = native_ops.version_info()
    except ValueError as error:  # EDGE_NATIVE_ISA names what this CPU has not
        raise AppError(str(error), EXIT_USAGE) from None
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": processor(),
        "machine": platform.machine(),
        "cpus": cpus,
        "threads": options.threads,
        "rounds": options.rounds,
        "isa": details["isa"],
        "executorch": details["executorch"],
        "compiler": details["compiler"],
        "roofline_gmacs": roofline_of(details["isa"], options.threads),
        "networks": [],
    }


def roofline_of(isa: str, threads: int) -> float:
    """GMAC/s that so many threads reach together with nothing but multiplies."""
    from native_ops.peer import roofline

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(roofline, [isa] * threads))


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What this machine calls its processor."""
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Of the working tree that runs, with a + where files differ from it; unknown outside of one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def say(text: str) -> None:
    """Progress, which is not part of the result."""
    print(text, file=sys.stderr, flush=True)


def _write(path: Path, contents: bytes) -> None:
    try:
        path.write_bytes(contents)
    except OSError as error:
        raise AppError(f"{path}: cannot be written: {error.strerror}", EXIT_BUG) from None
