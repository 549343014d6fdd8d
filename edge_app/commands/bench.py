"""`edge-app bench`: how fast the levels are here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXIT_CODES = """\b
Exit codes:
  0    done
  1    an error of the program itself, or output that cannot be written
  2    wrong usage, or building needs PyTorch and ExecuTorch, which are not installed
  5    the model is missing, damaged or incompatible
  130  ended by Ctrl-C
"""


def bench(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="An installed model or a file.  [default: cifar10-resnet20]"
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            metavar="NAME",
            help="Instead of a model: this network with random weights. resnet18, mobilenetv1, "
            "resnet20 and others, or all for these three.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", min=8, metavar="N", help="Pixels of the image's sides."),
    ] = None,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Beside the same network in XNNPACK, 8 bits and float32."),
    ] = False,
    programs: Annotated[
        Path | None,
        typer.Option(
            "--programs",
            metavar="DIR",
            help="Keep what is built here, and take it from here the next time.",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, metavar="N", help="Timed calls of each side.")
    ] = 100,
    threads: Annotated[
        int, typer.Option("--threads", min=1, metavar="N", help="Threads of each side.")
    ] = 1,
    cpus: Annotated[
        str | None,
        typer.Option(
            "--cpus", metavar="LIST", help="Run on the first of these (0,2-3), one for a thread."
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="cpu, vulkan[:N] or auto, as for run. On a GPU each level is also timed on the CPU.",
        ),
    ] = "cpu",
    layers: Annotated[
        bool, typer.Option("--layers", help="Also the time of every layer of every level.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all numbers to FILE.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="PNG", help="Draw the times into PNG.")
    ] = None,
    etdump: Annotated[
        Path | None,
        typer.Option(
            "--etdump", metavar="FILE", help="Also ExecuTorch's own profile of a run of each level."
        ),
    ] = None,
) -> None:
    """How fast the levels are here, also beside XNNPACK.

    All sides run in turn, in one process and on the same CPUs. --network, and --peers where --programs
    has nothing yet, need the server extra: pip install 'edge-app[server]'.
    """
    from edge_app.bench import benchmark

    options = benchmark.BenchOptions(
        model=model,
        network=network,
        size=size,
        peers=peers,
        programs=programs,
        rounds=rounds,
        threads=threads,
        cpus=cpus,
        device=device,
        layers=layers,
        json=json,
        plot=plot,
        etdump=etdump,
    )
    raise typer.Exit(benchmark.run(options))
