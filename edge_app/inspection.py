"""What a model file says about itself, for people."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from edge_app.console import plain_console
from edge_app.errors import AppError
from edge_app.models import branches_of, find, installed, models_directory, open_model

if TYPE_CHECKING:
    from rich.table import Table

    from native_ops import Program
    from native_ops.program import LayerTime

# Metadata key -> what to call it, in the order of printing.
PROVENANCE = {
    "network": "network",
    "method": "trained with",
    "dataset": "accuracy on",
    "accuracy_note": "note",
    "recipe_sha256": "recipe sha256",
    "commit": "commit",
    "created": "created",
}


def print_model(name: str, kernels: bool = False, memory: str = "normal", threads: int = 1) -> None:
    """Print everything about one model to stdout. AppError (exit code 5) if it cannot be read.

    kernels: run every level and print which kernel each layer got on this machine, with its time
    and how threads share it. memory, threads: as for `open_model`.
    """

    console = plain_console()
    path = find(name)
    with open_model(str(path), threads, memory) as program:
        metadata = program.metadata
        height, width, _ = program.input_shape
        facts = {
            "model": metadata.get("name", path.stem),
            "file": str(path),
            "size": f"{path.stat().st_size:,} bytes{_weights(metadata)}",
            "file sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "input": f"{width} x {height} pixels, RGB, 8 bits a channel",
            "labels": f"{len(program.labels)}: {', '.join(program.labels)}",
        }
        facts |= {title: metadata[key] for key, title in PROVENANCE.items() if metadata.get(key)}
        for title, value in facts.items():
            console.print(f"{title:>14}  {value}", markup=False, soft_wrap=True)
        console.print(_levels(program))
        if kernels:
            for bits in program.levels:
                console.print(_kernels(program, bits))


def _weights(metadata: dict[str, Any]) -> str:
    if "weights_bytes" not in metadata:
        return ""
    text = f", of which packed 2-bit weights {metadata['weights_bytes']:,}"
    if "storage_bytes" in metadata:
        text += f" (all parameters by the published formula {metadata['storage_bytes']:,})"
    return text


def _levels(program: Program) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title="Levels", title_justify="left", box=SIMPLE)
    for column in ("bits", "branches", "accuracy", "MACs", "BOPs"):
        table.add_column(column, justify="right")
    for bits, branches in branches_of(program).items():
        level = program.metadata["levels"][str(bits)]
        accuracy = level.get("accuracy")
        table.add_row(
            str(bits),
            ", ".join(str(branch) for branch in branches),
            "-" if accuracy is None else f"{accuracy:.2%}",
            _millions(level.get("macs")),
            _millions(level.get("bops")),
        )
    return table


def _kernels(program: Program, bits: int) -> Table:
    """Layers of one level, those of one shape and kernel together, with times of their second run."""
    import numpy as np
    from rich.box import SIMPLE
    from rich.table import Table

    image = np.zeros(program.input_shape, dtype=np.uint8)
    program.run(bits, image)
    groups: dict[tuple[str, str, str], list[LayerTime]] = {}
    for layer in program.profile(bits, image):
        groups.setdefault((layer.layer, layer.kernel, _threads(layer)), []).append(layer)
    table = Table(title=f"{bits} bits", title_justify="left", box=SIMPLE)
    for column in ("layer", "kernel"):
        table.add_column(column, overflow="fold")
    for column in ("threads", "times", "µs", "GMAC/s", "prepared kB"):
        table.add_column(column, justify="right")
    for (what, kernel, threads), times in groups.items():
        microseconds = sum(time.microseconds for time in times)
        macs, held = sum(time.macs for time in times), sum(time.weight_bytes for time in times)
        table.add_row(
            what,
            kernel,
            threads,
            str(len(times)),
            f"{microseconds:.1f}",
            f"{macs / microseconds / 1000:.0f}" if macs and microseconds else "-",
            f"{held / 1000:.0f}" if held else "-",
        )
    return table


def _threads(layer: LayerTime) -> str:
    return f"{layer.threads} beside" if layer.beside else str(layer.threads)


def _millions(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e6:,.2f} M"


def print_models() -> None:
    """Print the installed models to stdout, one row each; a damaged one with what is wrong."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE)
    for column in ("model", "input", "classes", "accuracy by bits", "size"):
        table.add_column(column)
    known = installed()
    if not known:
        print(f"No model is installed in {models_directory()}; run takes --model FILE.pte")
        return
    for name, path in known.items():
        try:
            with open_model(str(path)) as program:
                height, width, _ = program.input_shape
                table.add_row(
                    name,
                    f"{width} x {height}",
                    str(len(program.labels)),
                    accuracies(program.metadata),
                    f"{path.stat().st_size / 1000:.0f} kB",
                )
        except AppError as error:
            table.add_row(name, "-", "-", f"damaged: {error.message}", "-")
    plain_console().print(table)


def accuracies(metadata: dict[str, Any]) -> str:
    """Levels with their accuracy on one line."""
    parts = []
    for bits, level in sorted(metadata["levels"].items(), key=lambda item: int(item[0])):
        accuracy = level.get("accuracy")
        parts.append(f"{bits}: -" if accuracy is None else f"{bits}: {accuracy:.1%}")
    return "  ".join(parts)
