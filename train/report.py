"""What a reader wants to see of a run: a table of accuracy per level, and its learning curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from train.branches import AMORTISED

PUBLISHED: dict[tuple[str, str, str], dict[str, float]] = {
    ("mbquant", "resnet20", "cifar10"): {"2": 91.24, "4": 93.22, "6": 93.61, "8": 94.00}
}
"""Top-1 accuracy in percent: MBQuant (Pattern Recognition 2025), set 2468, ResNet-20."""


def accuracy_table(report: dict[str, Any]) -> Table:
    """Accuracy per level in percent beside the published figure, where there is one."""
    key = (report["method"], report["network"], report["dataset"].split()[0])
    published = PUBLISHED.get(key, {})
    table = Table(
        title=f"{report['name']}: top-1 on {report['dataset']}, last epoch",
        caption=(
            f"{report['pretrain_epochs']} full-precision + {report['epochs']} quantised epochs, "
            f"seed {report['seed']}, {report['wall_seconds'] / 60:.0f} min on {report['hardware']}"
        ),
    )
    for column in ("level", "branches", "accuracy %", "published %", "difference"):
        table.add_column(column, justify="right")
    for bits, accuracy in sorted(report["accuracy"].items(), key=lambda item: int(item[0])):
        reference = published.get(bits)
        table.add_row(
            f"{bits} bit",
            ",".join(map(str, AMORTISED[int(bits)])),
            f"{100 * accuracy:.2f}",
            "-" if reference is None else f"{reference:.2f}",
            "-" if reference is None else f"{100 * accuracy - reference:+.2f}",
        )
    return table


def plot_history(report: dict[str, Any], path: Path) -> None:
    """Draw test accuracy per level over the epochs of both phases."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    history = report["history"]
    if not history:
        return
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for bits in sorted(report["accuracy"], key=int):
        values = [100 * entry[f"accuracy{bits}"] for entry in history]
        axes.plot(range(1, len(values) + 1), values, marker=".", label=f"{bits} bit")
    boundary = sum(entry["phase"] == "pretrain" for entry in history)
    if boundary:
        axes.axvline(boundary + 0.5, color="grey", linestyle=":", label="quantisers on")
    axes.set(xlabel="epoch", ylabel="test accuracy (%)", title=report["name"])
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
