"""`edge-app log`: recorded runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Work with recorded runs.")


@app.command()
def plot(
    records: Annotated[Path, typer.Argument(metavar="JSONL", help="Written by run --jsonl.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="The picture.")],
) -> None:
    """Plot level, temperature and accuracy of a run."""
    from edge_app.plotting import plot_run

    plot_run(records, output)


@app.command()
def summarize(
    records: Annotated[
        list[Path], typer.Argument(metavar="JSONL...", help="Written by run --jsonl, in order.")
    ],
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Frames, accuracy, latency, age and causes of a run."""
    from edge_app.log_summary import summarize as summarize_log

    summarize_log(records, json)
