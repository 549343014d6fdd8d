"""Finished runs as results: read from their folders, checked, and grouped over seeds."""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from train.checkpoint import CHECKPOINT
from train.costs import Costs, LevelCost, recipe_costs
from train.methods import METHODS
from train.published import column, place
from train.recipe import MethodRecipe, Recipe, RecipeError, load_recipe

_KEYS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "method": str,
    "network": str,
    "accuracy": dict,
    "dataset": str,
    "train_images": int,
    "pretrain_epochs": int,
    "epochs": int,
    "seed": int,
    "commit": str,
    "hardware": str,
    "torch": str,
    "wall_seconds": (int, float),
    "history": list,
}


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        folder: as the caller named it.
        report: what ``report.json`` holds.
        accuracy: top-1 of the last epoch, 0..1, by bit-width.
        classes: number of outputs.
        input_size: (height, width) of the images.
    """

    folder: Path
    recipe: Recipe
    report: dict[str, Any]
    accuracy: dict[int, float]
    classes: int
    input_size: tuple[int, int]


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        RecipeError: when it is not a finished run.
    """
    missing = [n for n in (CHECKPOINT, "recipe.toml", "report.json") if not (folder / n).exists()]
    if missing:
        raise RecipeError(
            f"{folder}: not a finished run (no {', '.join(missing)}); train it to its end, or leave "
            "it out"
        )
    recipe = load_recipe(folder / "recipe.toml")
    file = folder / CHECKPOINT
    try:
        with safe_open(file, framework="pt", device="cpu") as stored:
            metadata = stored.metadata()
        classes = len(json.loads(metadata["labels"]))
        height, width = json.loads(metadata["input_size"])
        phase = json.loads(metadata["progress"])["phase"]
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise RecipeError(f"{file}: not the checkpoint of a run ({error}); train again") from None
    if phase != "done":
        raise RecipeError(f"{folder}: not finished; train it to its end, or leave it out")
    report, accuracy = _read_report(folder / "report.json", recipe)
    return Run(folder, recipe, report, accuracy, classes, (height, width))


def _read_report(file: Path, recipe: Recipe) -> tuple[dict[str, Any], dict[int, float]]:
    """What a run says of itself, and its accuracy by bit-width."""
    try:
        report = json.loads(file.read_text())
        wrong = [k for k, kind in _KEYS.items() if not isinstance(report.get(k), kind)]
        if wrong:
            raise ValueError(f"no {', '.join(wrong)}")
        if not all(isinstance(e, dict) and "phase" in e for e in report["history"]):
            raise ValueError("its history is no list of epochs")
        accuracy = {int(bits): float(value) for bits, value in report["accuracy"].items()}
        facts = {
            "levels": (tuple(sorted(accuracy)), recipe.method.bits),
            "method": (report["method"], recipe.method.name),
            "network": (report["network"], recipe.network.name),
            "seed": (report["seed"], recipe.seed),
            "pretrain_epochs": (report["pretrain_epochs"], recipe.pretrain.epochs),
            "epochs": (report["epochs"], recipe.train.epochs),
        }
        for name, (reported, planned) in facts.items():
            if reported != planned:
                raise ValueError(f"{name} {reported}, but {planned} in the recipe beside it")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RecipeError(f"{file}: not the report of this run ({error}); train again") from None
    return report, accuracy


def label(method: MethodRecipe) -> str:
    """How tables and plots name a method; a reconstruction says that it is one."""
    name = column(method)
    if method.name == "hot-swap":
        name += f" ({METHODS[method.name].source})"
    return name


@dataclass(frozen=True)
class Group:
    """Runs of one recipe that differ in their seed only.

    Dedicated networks hold one bit-width each, so those that differ in that too are one group.

    Attributes:
        label: tells it from all other groups in a table.
    """

    runs: tuple[Run, ...]
    label: str

    @property
    def method(self) -> MethodRecipe:
        return self.runs[0].recipe.method

    @property
    def column(self) -> str:
        return column(self.method)

    @property
    def dedicated(self) -> bool:
        return self.method.name == "dedicated"

    @property
    def bits(self) -> tuple[int, ...]:
        return tuple(sorted({bits for run in self.runs for bits in run.accuracy}))

    def percent(self, bits: int) -> list[float]:
        """Top-1 in percent at one level, for each seed that has it."""
        return [100.0 * run.accuracy[bits] for run in self.runs if bits in run.accuracy]

    def average(self, levels: Iterable[int]) -> list[float]:
        """The mean over levels for each seed, or of the levels' means where seeds differ."""
        columns = [self.percent(bits) for bits in levels]
        if len({len(values) for values in columns}) > 1 or self.dedicated:
            return [statistics.mean(map(statistics.mean, columns))]
        return [statistics.mean(values) for values in zip(*columns, strict=True)]

    @functools.cached_property
    def _costs(self) -> list[Costs]:
        """Of every network of the group: one, or one for each bit-width."""
        networks = {run.recipe.method.bits: run for run in self.runs}
        return [recipe_costs(r.recipe, r.classes, r.input_size) for r in networks.values()]

    @property
    def levels(self) -> dict[int, LevelCost]:
        """What an image costs at each level."""
        return {bits: level for costs in self._costs for bits, level in costs.levels.items()}

    def storage_bytes(self, levels: Iterable[int]) -> int:
        """Bytes that hold these levels, which dedicated networks need one by one."""
        wanted = set(levels)
        return sum(costs.storage_bytes for costs in self._costs if wanted & set(costs.levels))


@dataclass(frozen=True)
class Section:
    """Groups that can be compared: of one network, tested on the same images."""

    dataset: str
    network: str
    groups: tuple[Group, ...]

    @property
    def name(self) -> str:
        """The dataset without the count of its images."""
        return self.dataset.split()[0]

    def sets(self) -> list[tuple[int, ...]]:
        """Sets of bit-widths that get a table: those of the networks that hold several."""
        shared = {group.bits for group in self.groups if not group.dedicated}
        alone = {b for group in self.groups if group.dedicated for b in group.bits}
        left = tuple(sorted(alone.difference(*shared)))
        return sorted(shared, key=lambda bits: (len(bits), bits)) + ([left] if left else [])


def sections(folders: Iterable[Path]) -> list[Section]:
    """Read and arrange runs; a folder named twice counts once.

    Raises:
        RecipeError: a folder is not a finished run, or two of them hold the same run.
    """
    unique = {folder.resolve(): folder for folder in folders}
    runs = [read_run(folder) for folder in unique.values()]
    same: dict[tuple[object, ...], dict[tuple[object, ...], Run]] = {}
    for run in runs:
        seeds = same.setdefault(_kind(run), {})
        key = run.recipe.seed, run.recipe.method.bits
        if key in seeds:
            raise RecipeError(
                f"{run.folder} and {seeds[key].folder}: the same recipe and seed; leave one out"
            )
        seeds[key] = run
    kinds = [tuple(sorted(v.values(), key=lambda r: r.recipe.seed)) for v in same.values()]
    arranged: dict[tuple[str, str], list[tuple[Run, ...]]] = {}
    for members in kinds:
        report = members[0].report
        arranged.setdefault((report["dataset"], report["network"]), []).append(members)
    return [
        Section(dataset, network, _labelled(members))
        for (dataset, network), members in sorted(arranged.items())
    ]


def _kind(run: Run) -> tuple[object, ...]:
    """Equal for runs that differ in their seed only."""
    method = run.recipe.method
    if method.name == "dedicated":
        method = dataclasses.replace(method, bits=())
    neutral = dataclasses.replace(run.recipe, name="", seed=0, method=method)
    return neutral.fingerprint(), run.report["dataset"], run.report["train_images"]


def _labelled(members: list[tuple[Run, ...]]) -> tuple[Group, ...]:
    """Groups in the paper's order, named by method and as much else as tells them apart."""
    names: list[list[str]] = []
    for runs in members:
        first = runs[0]
        method = label(first.recipe.method)
        levels = f"{method} {''.join(map(str, first.recipe.method.bits))}"
        suffixes = ("", f" [{first.recipe.name}]", f" [{first.folder}]")
        names.append([method, *(levels + suffix for suffix in suffixes)])
    groups = []
    for runs, candidates in zip(members, names, strict=True):
        free = (
            text
            for index, text in enumerate(candidates)
            if sum(others[index] == text for others in names) == 1
        )
        groups.append(Group(runs, next(free)))
    return tuple(sorted(groups, key=lambda group: (place(group.column), group.label)))
