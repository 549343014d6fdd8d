"""The comparison as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_app.console import plain_console
from edge_app.governor.simulation.run import Run

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("peak\n°C", "peak_c", "{:.1f}"),
    ("min above\ncontrol", "minutes_above_control", "{:.1f}"),
    ("min\nthrottled", "minutes_throttled", "{:.1f}"),
    ("changes\nan hour", "changes_per_hour", "{:.1f}"),
    ("mean\nbits", "mean_bits", "{:.2f}"),
    ("mean\nfps", "mean_fps", "{:.1f}"),
    ("expected\naccuracy", "accuracy", "{:.2%}"),
    ("energy\nWh", "energy_wh", "{:.2f}"),
    ("battery\nat the end", "charge", "{:.0%}"),
)
LEAST_COLUMNS = 124
"""Of a page or a file; a terminal is as wide as it is."""


def print_table(title: str, note: str, runs: Sequence[Run]) -> None:
    """Print one row for each run, and what the figures are worth."""
    from rich.box import SIMPLE
    from rich.table import Table

    summaries = [run.summary() for run in runs]
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("governor", no_wrap=True)
    # What no run has (a battery) needs no column.
    columns = [column for column in COLUMNS if any(row[column[1]] is not None for row in summaries)]
    for heading, _, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("time of\ndeath", justify="right", no_wrap=True)
    for row in summaries:
        cells = ["-" if row[key] is None else form.format(row[key]) for _, key, form in columns]
        table.add_row(row["governor"], *cells, _death(row))
    console = plain_console()
    if not console.is_terminal:
        console.width = max(console.width, LEAST_COLUMNS)
    console.print(table)
    console.print(f"{note}. Accuracy is that of the model's test set at the levels that ran.")


def _death(row: dict[str, Any]) -> str:
    hours = row["died_after_hours"]
    if hours is None:
        return "-"
    minutes = round(hours * 60)
    return f"{minutes // 60}:{minutes % 60:02} h, {row['died_of']}"
