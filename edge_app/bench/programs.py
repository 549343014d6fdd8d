"""Which files a benchmark runs, and building those that are not there yet.

Building needs PyTorch, which the device's rooms do not import: `export.peers` does it as a process of
its own, and what comes back is files.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_app.errors import EXIT_BUG, EXIT_USAGE, AppError
from edge_app.models import find

if TYPE_CHECKING:
    from edge_app.bench.benchmark import BenchOptions

ALL_NETWORKS = ("resnet18", "mobilenetv1", "resnet20")
DEFAULT_MODEL = "cifar10-resnet20"


@dataclass(frozen=True)
class Programs:
    """A model file, and the folder with the programs of the other side if they are wanted."""

    name: str
    model: Path
    peers: Path | None


def programs(options: BenchOptions, stack: ExitStack) -> list[Programs]:
    """What the options ask for, built where necessary; temporary files live as long as the stack.

    AppError with exit code 2 for options that do not fit, a network that does not exist, and where
    PyTorch is needed and not installed; with 5 for a model that is not there.
    """
    if options.network is None:
        if options.size is not None:
            raise AppError("--size: goes with --network; a model has its own", EXIT_USAGE)
        model = find(options.model or DEFAULT_MODEL)
        folder = _build(str(model), model.stem, options, stack) if options.peers else None
        return [Programs(model.name, model, folder)]
    if options.model is not None:
        raise AppError("give a model or --network, not both", EXIT_USAGE)
    names = ALL_NETWORKS if options.network == "all" else (options.network,)
    found = []
    for name in names:
        folder = _build(name, name, options, stack)
        found.append(Programs(name, folder / "model.pte", folder if options.peers else None))
    return found


def _build(target: str, name: str, options: BenchOptions, stack: ExitStack) -> Path:
    """The folder with the programs of a model or a network."""
    from edge_app.bench.benchmark import say

    if options.programs is None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-app-bench-")))
    else:
        folder = options.programs / (name if options.size is None else f"{name}-{options.size}")
        if (folder / "peers.json").is_file():
            return folder
    say(f"building {name} for the comparison, which takes a minute or two")
    command = [sys.executable, "-P", "-m", "export.peers", target, "-o", str(folder)]
    if options.size is not None:
        command += ["--size", str(options.size)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        lines = built.stderr.strip().splitlines() or [f"exit code {built.returncode}"]
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        code = EXIT_USAGE if built.returncode == EXIT_USAGE and said else EXIT_BUG
        raise AppError(said[-1] if said else f"building {name} failed: {lines[-1]}", code)
    return folder


def macs_of(folder: Path) -> int:
    """Multiply-accumulates of the other side's network."""
    return int(json.loads((folder / "peers.json").read_text())["macs"])
