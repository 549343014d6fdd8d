"""The comparison's curves: temperature, what runs, and charge, a colour for each governor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_app.governor.simulation.run import Run
from edge_app.plotting import load_pyplot, save_figure

# Okabe and Ito's colours: told apart by colour-blind people too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def draw(title: str, runs: Sequence[Run], output: Path) -> None:
    """Draw ``runs`` into ``output``, a picture file.

    AppError (exit code 2) if matplotlib is missing or ``output`` cannot be written.
    """
    charged = any(charge is not None for run in runs for charge in run.curves.charge)
    panels = 3 if charged else 2
    figure, axes = load_pyplot().subplots(
        panels, 1, sharex=True, figsize=(10, 2.5 * panels), layout="constrained"
    )
    for index, run in enumerate(runs):
        colour, curves = COLOURS[index % len(COLOURS)], run.curves
        style = {"color": colour, "linewidth": 1.2, "linestyle": "-" if index < 7 else "--"}
        axes[0].plot(curves.hours, _gaps(curves.chip_c), label=run.name, **style)
        # Bits at full frame rate; below the lowest level the share of its frames shows.
        full = max(curves.fps, default=0.0) or 1.0
        work = [bits * fps / full for bits, fps in zip(curves.bits, curves.fps, strict=True)]
        axes[1].step(curves.hours, work, where="post", **style)
        if charged:
            percent = [None if charge is None else charge * 100.0 for charge in curves.charge]
            axes[2].plot(curves.hours, _gaps(percent), **style)
    axes[0].set_ylabel("chip in °C")
    axes[1].set_ylabel("bits x share of frames")
    if charged:
        axes[2].set_ylabel("charge in %")
    axes[-1].set_xlabel("hours")
    axes[0].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.suptitle(title)
    save_figure(figure, output)


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
