"""What a benchmark found, for people."""

from __future__ import annotations

import sys
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from edge_app.console import plain_console


def print_report(report: dict[str, Any]) -> None:
    """Print the tables and what they were measured on to stdout."""
    terminal = sys.stdout.isatty()
    console = plain_console(width=None if terminal else max(120, Console().width))
    for network in report["networks"]:
        console.print(_times(network, report["threads"]))
        for row in network["sides"]:
            if row["gpu"] is not None:
                console.print(_frame(row), markup=False, soft_wrap=True)
        for bits, layers in network.get("layers", {}).items():
            title = f"{network['network']}, {bits} bits, layer by layer"
            console.print(_layers(title, layers, report["isa"]))
    for line in _conditions(report):
        console.print(line, markup=False, soft_wrap=True)


def _times(network: dict[str, Any], threads: int) -> Table:
    height, width = network["input"]
    title = (
        f"{network['network']} at {width}x{height}, {threads} thread{'s' * (threads > 1)}, in ms"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("side")
    table.add_column("branches")
    titles = ("median", "p90", "min", "to int8", "CPU", "to int8", "GMAC/s", "roofline", "MB")
    for title in titles:
        table.add_column(title, justify="right")
    for row in network["sides"]:
        table.add_row(
            row["side"],
            ",".join(map(str, row["branches"])),
            *(f"{row[key] / 1e3:.3f}" for key in ("median_us", "p90_us", "min_us")),
            _number(row["ratio_to_int8"], "{:.2f}"),
            f"{row['cpu_median_us'] / 1e3:.3f}",
            _number(row["cpu_ratio_to_int8"], "{:.2f}"),
            _number(row["gmacs"], "{:.1f}"),
            _number(row["roofline_percent"], "{:.0f} %"),
            _number(row["resident_bytes"], "{:.1f}", 1e6),
        )
    return table


def _frame(row: dict[str, Any]) -> str:
    gpu = row["gpu"]
    return (
        f"{row['side']} on {row['device']}: {gpu['device_us']:.0f} us by its clock, waited for"
        f" {gpu['wait_us']:.0f} us, {gpu['host_us']:.0f} us besides;"
        f" {gpu['submits_per_frame']:g} submit a frame; of all levels {gpu['uploaded_bytes'] / 1e6:.2f}"
        f" MB uploaded, {gpu['device_bytes'] / 1e6:.2f} MB held"
    )


def _number(value: float | None, form: str, unit: float = 1.0) -> str:
    return "-" if value is None else form.format(value / unit)


def _layers(title: str, layers: list[dict[str, Any]], isa: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for column in ("branch", "layer", "kernel"):
        table.add_column(column)
    for column in ("us", "share", "GMAC/s"):
        table.add_column(column, justify="right")
    total = sum(layer["microseconds"] for layer in layers)
    for layer in layers:
        took, macs = layer["microseconds"], layer["macs"]
        table.add_row(
            str(layer["branch"] or ""),
            layer["layer"],
            layer["kernel"].removesuffix(f"__{isa}"),
            f"{took:.1f}",
            f"{took / total:.1%}" if total else "-",
            f"{macs / took / 1e3:.1f}" if macs and took else "-",
        )
    return table


def _conditions(report: dict[str, Any]) -> list[str]:
    cpus = ",".join(map(str, report["cpus"]))
    return [
        f"{report['cpu']}, pinned to CPU {cpus}, {report['threads']} thread(s);"
        f" {report['rounds']} rounds in turn",
        f"kernels {report['isa']}, roofline of 8-bit integers"
        f" {report['roofline_gmacs']:.0f} GMAC/s, measured; executorch {report['executorch']}",
        "to int8: median over rounds; CPU: median of the CPU time, without pauses for other"
        " processes; GMAC/s: multiplications of the direct algorithm in the shortest time, which"
        " Winograd's can take above the roofline; MB: memory that a side alone holds",
        f"commit {report['commit']}, {report['created'][:10]}",
    ]
