"""Plots of results: accuracy against cost, and learning curves."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from train.checkpoint import write_beside
from train.published import published
from train.recipe import MethodRecipe
from train.results import Group, Section, label

CAPTIONS = {
    "accuracy-cost": "Accuracy against what one image costs, with the range over seeds; a machine with "
    "8-bit multipliers pays the int8 MACs.",
    "curves": "Test accuracy after each epoch with running statistics, and the loss of each epoch's last "
    "batch, at every level; where several seeds ran, their mean and range.",
}
_MARKERS = {1: "P", 2: "o", 3: "v", 4: "s", 5: "<", 6: "^", 7: ">", 8: "D"}
_PUBLISHED: dict[str, Any] = {"linestyle": ":", "linewidth": 1, "markerfacecolor": "white"}
_WIDTH = 10.0


def accuracy_cost(section: Section) -> dict[str, bytes]:
    """Accuracy of every group and level over int8 MACs and over BOPs, as ``{"png", "svg"}``."""
    figure, panels = pyplot.subplots(1, 2, figsize=(_WIDTH, 5.5), sharey=True, layout="constrained")
    colours = pyplot.get_cmap("tab10")
    handles: list[Line2D] = []
    compared = False
    for index, group in enumerate(section.groups):
        colour = colours(index % 10)
        reference = published(section.name, section.network, group.bits, group.column)
        for axes, costs in zip(panels, _costs(group), strict=True):
            _draw_published(axes, costs, reference, colour)
            _draw_ours(axes, costs, group, colour)
        compared = compared or bool(reference)
        handles.append(Line2D([], [], color=colour, label=_wrapped(group.label)))
    shapes = [
        Line2D([], [], color="grey", linestyle="", marker=_MARKERS[bits], label=f"{bits} bit")
        for bits in sorted({b for group in section.groups for b in group.bits})
    ]
    if compared:
        handles.append(Line2D([], [], marker="o", label="published", **_PUBLISHED, color="grey"))
    panels[0].set(xlabel="int8 MACs of an image (millions)", ylabel="top-1 accuracy (%)")
    panels[1].set(xlabel="BOPs of an image (billions)")
    for axes in panels:
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    figure.suptitle(f"{section.network} on {section.dataset}")
    panels[1].legend(handles=shapes, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return _rendered(figure)


def _costs(group: Group) -> tuple[dict[int, float], dict[int, float]]:
    """Per level: int8 MACs in millions, BOPs in billions."""
    levels = group.levels
    return (
        {bits: cost.macs / 1e6 for bits, cost in levels.items()},
        {bits: cost.bops / 1e9 for bits, cost in levels.items()},
    )


def _draw_ours(axes: Axes, costs: dict[int, float], group: Group, colour: Any) -> None:
    means = {}
    for bits in group.bits:
        values = group.percent(bits)
        means[bits] = sum(values) / len(values)
        errors = [[means[bits] - min(values)], [max(values) - means[bits]]]
        axes.errorbar(
            costs[bits], means[bits], errors if len(values) > 1 else None,
            color=colour, marker=_MARKERS[bits], capsize=3,
        )  # fmt: skip
    axes.plot([costs[b] for b in means], list(means.values()), color=colour)


def _draw_published(
    axes: Axes, costs: dict[int, float], reference: dict[int, float], colour: Any
) -> None:
    ordered = sorted(reference)
    xs, ys = [costs[b] for b in ordered], [reference[b] for b in ordered]
    axes.plot(xs, ys, color=colour, **_PUBLISHED)
    for bits, x, y in zip(ordered, xs, ys, strict=True):
        axes.plot(x, y, color=colour, marker=_MARKERS[bits], **_PUBLISHED)


def curves(section: Section) -> dict[str, bytes]:
    """Learning curves of every group, as ``{"png", "svg"}``."""
    rows = len(section.groups)
    figure, panels = pyplot.subplots(
        rows, 2, figsize=(_WIDTH, 3.2 * rows + 0.6), squeeze=False, layout="constrained"
    )
    for (left, right), group in zip(panels, section.groups, strict=True):
        histories = {
            bits: [run.report["history"] for run in group.runs if bits in run.accuracy]
            for bits in group.bits
        }
        draw_history(left, right, histories, _wrapped(group.label))
    figure.suptitle(f"{section.network} on {section.dataset}")
    return _rendered(figure)


def plot_history(report: dict[str, Any], method: MethodRecipe, path: Path) -> None:
    """Draw one run's learning curves into a PNG file.

    Args:
        report: what ``report.json`` holds.
        method: of the run's recipe.
    """
    if not report["history"]:
        return
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(_WIDTH, 4), layout="constrained")
    histories = {int(bits): [report["history"]] for bits in report["accuracy"]}
    draw_history(left, right, histories, _wrapped(label(method)))
    figure.suptitle(f"{report['name']}: {report['network']} on {report['dataset']}")
    write_beside(path, _rendered(figure)["png"])


def draw_history(
    left: Axes, right: Axes, histories: dict[int, list[list[dict[str, Any]]]], title: str
) -> None:
    """Accuracy into the left axes, loss into the right: ``{bits: history of each seed}``."""
    boundary = 0
    for bits, seeds in sorted(histories.items()):
        colour = pyplot.get_cmap("viridis")((bits - 1) / 8)
        for axes, key, scale in ((left, "accuracy", 100.0), (right, "loss", 1.0)):
            values = [[scale * e.get(f"{key}{bits}", math.nan) for e in h] for h in seeds]
            _draw_band(axes, values, colour, f"{bits} bit")
        boundary = max(sum(e["phase"] == "pretrain" for e in h) for h in seeds)
    for axes in (left, right):
        if boundary:
            axes.axvline(boundary + 0.5, color="grey", linestyle=":", label="quantisers on")
        axes.set(xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    left.set(ylabel="test accuracy (%)")
    left.set_title(title, loc="left", fontsize="medium")
    right.set(ylabel="training loss (last batch)")
    right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _draw_band(axes: Axes, values: Sequence[Sequence[float]], colour: Any, name: str) -> None:
    """The mean over seeds and the range around it."""
    columns = list(zip(*values, strict=False))  # an older run may have recorded fewer epochs
    epochs = range(1, len(columns) + 1)
    axes.plot(
        epochs,
        [sum(c) / len(c) for c in columns],
        color=colour,
        marker=".",
        markersize=4,
        label=name,
    )
    if len(values) > 1:
        axes.fill_between(
            epochs, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.2
        )


def _wrapped(text: str) -> str:
    return text.replace(" (", "\n(").replace(" [", "\n[")


def _rendered(figure: Figure) -> dict[str, bytes]:
    images = {}
    for suffix in ("png", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=120)
        images[suffix] = buffer.getvalue()
    pyplot.close(figure)
    return images
