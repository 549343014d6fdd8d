"""What an export tells: the metadata inside the file, and the tables on the terminal."""

import importlib.metadata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from export.costs import level_cost, storage_bytes
from export.integer import IntegerNetwork
from export.program import FORMAT, Packed
from export.verification import LevelAccuracy
from train import LoadedRun
from train.data import Dataset

_PROVENANCE = ("seed", "epochs", "pretrain_epochs", "train_images")


def metadata(
    name: str,
    run: LoadedRun,
    network: IntegerNetwork,
    dataset: Dataset,
    images: int,
    weights_bytes: int,
    accuracies: Sequence[LevelAccuracy],
) -> dict[str, Any]:
    """What the file says about itself, for JSON.

    Args:
        dataset: the test set, on so many `images` of which the accuracies were measured.
        weights_bytes: of the packed weight codes, without headers.
        accuracies: of every level; empty before the file was measured.
    """
    measured = {level.bits: level for level in accuracies}
    levels: dict[str, dict[str, Any]] = {}
    for bits, level in network.levels.items():
        cost = level_cost(network, bits)
        entry = {"branches": list(level.branches), "macs": cost.macs, "bops": cost.bops}
        if level.half:
            entry["half_branch"] = level.branches[-1]
        if bits in measured:
            entry["accuracy"] = measured[bits].program
            entry["trained_accuracy"] = measured[bits].trained
        levels[str(bits)] = entry
    height, width = network.input_size
    return {
        "format": FORMAT,
        "name": name,
        "network": run.report["network"],
        "method": run.report["method"],
        "levels": levels,
        "labels": list(network.labels),
        "input": {"height": height, "width": width},
        "dataset": dataset.name,
        "test_images": images,
        "accuracy_note": "top-1, measured by running this program on "
        + (
            "every image of the test set"
            if images == len(dataset)
            else f"{images} of {len(dataset)} images of the test set, evenly spread"
        ),
        "stem": f"{run.recipe.network.stem_bits}-bit fixed-point weights on 8-bit pixels",
        # The fingerprint of the code that trained; a later one may know more keys.
        "recipe_sha256": run.report.get("recipe_sha256") or run.recipe.fingerprint(),
        "commit": run.report["commit"],
        "training": {key: run.report[key] for key in _PROVENANCE if key in run.report},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights_bytes": weights_bytes,
        "storage_bytes": storage_bytes(network),
        "versions": {
            package: importlib.metadata.version(package) for package in ("torch", "executorch")
        },
    }


def measured_on(dataset: Dataset, images: int) -> str:
    """The test set, and how much of it was used where that is not all."""
    return dataset.name if images == len(dataset) else f"{images} images of {dataset.name}"


def level_table(
    network: IntegerNetwork, accuracies: Sequence[LevelAccuracy], dataset: str
) -> Table:
    """Accuracy of the trained network and of the file side by side, and what a level costs."""
    table = Table(
        title=f"Top-1 in percent on {dataset}",
        title_justify="left",
        caption="changed: images that the trained network and the file classify differently",
        caption_justify="left",
    )
    for column in ("bits", "branches", "trained", ".pte", "delta", "changed", "MACs", "BOPs"):
        table.add_column(column, justify="right")
    for level in accuracies:
        cost = level_cost(network, level.bits)
        branches = ",".join(map(str, level.branches))
        table.add_row(
            str(level.bits),
            f"{branches} (half)" if network.level(level.bits).half else branches,
            f"{100 * level.trained:.2f}",
            f"{100 * level.program:.2f}",
            f"{100 * (level.program - level.trained):+.2f}",
            str(level.disagreements),
            f"{cost.macs / 1e6:,.2f} M",
            f"{cost.bops / 1e6:,.1f} M",
        )
    return table


def size_table(network: IntegerNetwork, packed: Packed, file_bytes: int) -> Table:
    """Where the bytes of the file are, beside the published way of counting them."""
    storage, repeated = storage_bytes(network), packed.repeated_bytes
    table = Table(title="Bytes", title_justify="left", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_row("weight codes, four a byte", f"{packed.payload_bytes:,}")
    if repeated:
        table.add_row("of these, those that half branches repeat", f"{repeated:,}")
    table.add_row("all parameters by the published formula", f"{storage:,}")
    if repeated:
        table.add_row("weights of half branches, once more", f"{repeated:,}")
    table.add_row("program besides them", f"{file_bytes - storage - repeated:,}")
    table.add_row("file", f"{file_bytes:,}", style="bold")
    return table
