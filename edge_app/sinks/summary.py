"""The table at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from edge_app.console import plain_console
from edge_app.sinks.statistics import Distribution, Statistics

if TYPE_CHECKING:
    from rich.console import Console


def print_summary(
    statistics: Statistics,
    seconds: float,
    fixed: bool,
    losses: Mapping[str, int],
    file: TextIO | None = None,
) -> None:
    """Frames, accuracy and latency for each level, and the governor's changes, to stderr.

    ``seconds``: how long the run took; ``fixed``: the level did not follow the governor;
    ``losses``: frames that were not classified or not written, by reason;
    ``file``: somewhere else than stderr.
    """
    from rich.box import SIMPLE
    from rich.table import Table

    console = plain_console(file=file, stderr=file is None)
    rate = statistics.frames / seconds if seconds > 0 else 0.0
    plural = "" if statistics.frames == 1 else "s"
    console.print(f"{statistics.frames} frame{plural} in {seconds:.1f} s ({rate:.1f} a second)")
    if statistics.frames:
        table = Table(title="Levels and times of inference", title_justify="left", box=SIMPLE)
        table.add_column("bits", justify="right")
        table.add_column("frames", justify="right")
        table.add_column("share", justify="right")
        table.add_column("accuracy", justify="right")
        for percent in (50, 90, 99):
            table.add_column(f"p{percent} ms", justify="right")
        for bits, level in sorted(statistics.levels.items()):
            table.add_row(
                str(bits),
                str(level.frames),
                f"{level.frames / statistics.frames:.1%}",
                "-" if level.accuracy is None else f"{level.accuracy:.2%} of {level.labelled}",
                *(milliseconds(level.infer_s, percent) for percent in (50, 90, 99)),
            )
        console.print(table)
    if losses:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(losses.items()))
        console.print(f"Frames left out: {reasons}.", soft_wrap=True)
    if statistics.escalated:
        console.print(
            f"Run again at a higher level: {statistics.escalated} "
            f"({statistics.escalated / statistics.frames:.1%}), of which "
            f"{statistics.agreed / statistics.escalated:.0%} gave the same answer."
        )
    if fixed:
        console.print("The level was fixed; the governor only watched.")
    _print_changes(statistics, console)


def milliseconds(distribution: Distribution, percent: float) -> str:
    value = distribution.percentile(percent)
    return "-" if value is None else f"{value * 1e3:.3g}"


def _print_changes(statistics: Statistics, console: Console) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    if not statistics.changes:
        console.print("The governor changed nothing.")
        return
    table = Table(title="Changes", title_justify="left", box=SIMPLE)
    table.add_column("from bits", justify="right")
    table.add_column("to bits", justify="right")
    table.add_column("cause")
    table.add_column("times", justify="right")
    for (previous, bits, cause), times in sorted(statistics.changes.items(), reverse=True):
        table.add_row(str(previous), str(bits), cause, str(times))
    console.print(table)
