"""How fast are a model's levels? Beside the 8-bit network that one would otherwise ship.

    python -m export.bench MODEL.pte [--rounds N] [--threads N]

The other side is one full-precision body of the same network, quantised to 8 bits per channel by
PyTorch's own tools and lowered to XNNPACK (Google), run by ExecuTorch's Python runtime. Both sides run
in this process, in turn: level, level, ..., baseline, level, ..., so that a machine whose speed drifts
slows both. The time of a call that computes nothing is measured as well and taken off the baseline,
whose runtime has the slower binding; nothing is taken off ours.
"""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import native_ops
from native_ops import ModelError, Program
from train.networks import NETWORKS, PlainNet

WARM_UP = 20
_CALIBRATION_IMAGES = 8


def xnnpack_program(network: nn.Module, image: Tensor) -> bytes:
    """The network as an ExecuTorch program of 8-bit XNNPACK kernels, per-channel weights."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    with torch.no_grad():
        prepared = prepare_pt2e(torch.export.export(network.eval(), (image,)).module(), quantizer)
        for _ in range(_CALIBRATION_IMAGES):
            prepared(torch.randn_like(image))
        program = torch.export.export(convert_pt2e(prepared), (image,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    left = [
        node
        for node in lowered.exported_program().graph.nodes
        if node.op == "call_function" and "convolution" in str(node.target)
    ]
    if left:
        raise RuntimeError("XNNPACK did not take every convolution; this is no fair baseline")
    return bytes(lowered.to_executorch().buffer)


class _Increment(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1.0


def _call_program(number: Tensor) -> bytes:
    """Next to no computation: what is left is the time of a call."""
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(_Increment(), (number,))
    return bytes(to_edge_transform_and_lower(exported).to_executorch().buffer)


def _baseline(contents: bytes, argument: Tensor) -> Callable[[], Any]:
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(contents)
    method = program.load_method("forward")
    if method is None:
        raise RuntimeError("the baseline has no method 'forward'")

    # The runtime reads its program from these bytes and does not keep them.
    def call(held: Any = (contents, program)) -> Any:
        return method.execute([argument])

    return call


def measure(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call of each side, all sides once a round, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(WARM_UP + rounds):
        for name, call in sides.items():
            started = time.perf_counter()
            call()
            if round_number >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
            else:
                seconds[name].clear()
    return seconds


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _command(
    model: Annotated[Path, typer.Argument(help="A model file (.pte).")],
    rounds: Annotated[int, typer.Option(min=10, help="Measured calls of each side.")] = 300,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each side.")] = 1,
) -> None:
    """Time every level of a model against an 8-bit XNNPACK network of the same shape."""
    try:
        program = Program.open(model, threads=threads)
    except ModelError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    spec = NETWORKS.get(str(program.metadata.get("network")))
    if spec is None:
        typer.echo(f"error: {model}: has a network that is not in train.networks", err=True)
        raise typer.Exit(2)
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

    # Before anything is loaded: a loaded method keeps a pointer to the pool.
    _unsafe_reset_threadpool(threads)
    height, width, _ = program.input_shape
    torch.manual_seed(0)
    image = torch.randn(1, 3, height, width).to(memory_format=torch.channels_last)
    network = PlainNet(spec, len(program.labels))
    sides = {
        "nothing": _baseline(_call_program(torch.zeros(1)), torch.zeros(1)),
        "xnnpack int8": _baseline(xnnpack_program(network, image), image),
    }
    pixels = np.random.default_rng(0).integers(0, 256, program.input_shape, dtype=np.uint8)
    for bits in program.levels:
        sides[f"{bits} bits"] = lambda bits=bits: program.run(bits, pixels)  # type: ignore[misc]
    seconds = measure(sides, rounds)
    nothing = statistics.median(seconds.pop("nothing"))
    baseline = [max(value - nothing, 1e-9) for value in seconds.pop("xnnpack int8")]
    Console().print(_table(program, seconds, baseline))
    details = (
        f"{_processor()}, {os.cpu_count()} CPUs; {threads} thread(s); {rounds} rounds in turn",
        f"kernels {native_ops.isa_selected()}; torch {torch.__version__};"
        f" executorch {native_ops.version_info()['executorch']}",
        f"a call that computes nothing takes the baseline's runtime {nothing * 1e3:.4f} ms,"
        " taken off above",
        f"commit {_commit()}, {datetime.now(UTC):%Y-%m-%d}",
    )
    print("\n".join(details))


def _table(program: Program, seconds: dict[str, list[float]], baseline: list[float]) -> Table:
    table = Table(title=f"{program.path.name}: time of one image", title_justify="left")
    table.add_column("")
    for column in ("branches", "median ms", "p90 ms", "ratio to int8"):
        table.add_column(column, justify="right")

    def milliseconds(values: list[float]) -> tuple[str, str]:
        return (
            f"{statistics.median(values) * 1e3:.4f}",
            f"{statistics.quantiles(values, n=10)[-1] * 1e3:.4f}",
        )

    table.add_row("XNNPACK int8", "one body", *milliseconds(baseline), "1.00")
    for name, values in seconds.items():
        branches = program.metadata["levels"][name.split()[0]]["branches"]
        # Pair by pair: what slowed the machine slowed both of a round.
        ratio = statistics.median(a / b for a, b in zip(values, baseline, strict=True))
        table.add_row(name, ",".join(map(str, branches)), *milliseconds(values), f"{ratio:.2f}")
    return table


app = typer.Typer(add_completion=False)
app.command()(_command)

if __name__ == "__main__":
    from export.__main__ import silence_dependencies

    silence_dependencies()
    sys.exit(app(prog_name="python -m export.bench"))
