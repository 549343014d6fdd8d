"""What a run keeps on disk, written so that a full disk or a kill at any moment loses nothing."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from train import methods
from train.branches import MultiBranchNet
from train.recipe import Recipe, RecipeError, difference, load_recipe

CHECKPOINT = "checkpoint.safetensors"


class TrainingError(RuntimeError):
    """Training cannot go on; the message says where it stopped and what to do."""


@dataclass
class Progress:
    """Where a run stands; stored in every checkpoint."""

    phase: str = "pretrain"
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float | str]] = field(default_factory=list)


def write_beside(path: Path, data: bytes) -> None:
    """Write a file whole: beside its place, through to the disk, then renamed into it.

    The name beside it is always the same: a kill leaves at most one, which the next write replaces.

    Raises:
        TrainingError: no room or no permission; the file is what it was before.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        kept = "; what it held before is still good" if path.exists() else ""
        raise TrainingError(
            f"{path}: cannot be written ({error.strerror}){kept}. Make room for "
            f"{len(data) / 1e6:.1f} MB, then repeat the command: it continues"
        ) from None
    with contextlib.suppress(OSError):  # not every file system can; the rename is atomic anyway
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def save_checkpoint(
    folder: Path,
    network: MultiBranchNet,
    optimizers: dict[str, torch.optim.Optimizer],
    progress: Progress,
) -> None:
    """Write everything that a run needs to continue bit for bit.

    Raises:
        TrainingError: when it cannot be written; the previous checkpoint is then still good.
    """
    tensors = {f"model.{k}": v.contiguous() for k, v in network.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                if value is not None:
                    tensors[f"{name}.{index}.{key}"] = torch.as_tensor(value).contiguous()
    metadata = {
        "progress": json.dumps(asdict(progress)),
        "labels": json.dumps(network.labels),
        "input_size": json.dumps(network.input_size),
    }
    write_beside(folder / CHECKPOINT, save(tensors, metadata))


def load_checkpoint(
    folder: Path,
    recipe: Recipe,
    network: MultiBranchNet,
    optimizers: dict[str, torch.optim.Optimizer],
) -> Progress:
    """Restore network and optimisers from ``folder``, if a run of this recipe was begun there.

    Raises:
        RecipeError: the folder holds a run of another recipe (with the differences), or its
            checkpoint is damaged.
    """
    file = folder / CHECKPOINT
    if not file.exists():
        return Progress()
    theirs = load_recipe(folder / "recipe.toml")
    if theirs.fingerprint() != recipe.fingerprint():
        lines = "\n  ".join(difference(recipe, theirs))
        raise RecipeError(
            f"{folder} holds a run of another recipe; choose another folder with --out, "
            f"or delete it. Differences (yours != theirs):\n  {lines}"
        )
    groups: dict[str, dict[str, Tensor]] = {name: {} for name in ("model", *optimizers)}
    try:
        # To the CPU: loading moves what belongs elsewhere, but not Adam's counts of steps, each of which
        # would have to come back from a GPU in every step.
        with safe_open(file, framework="pt", device="cpu") as stored:
            progress = Progress(**json.loads(stored.metadata()["progress"]))
            for key in stored.keys():
                group, _, rest = key.partition(".")
                groups[group][rest] = stored.get_tensor(key)
        network.load_state_dict(groups["model"])
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise RecipeError(
            f"{file}: damaged, or of another version ({error}); delete it to begin anew"
        ) from None
    for name, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in groups[name].items():
            index, _, field_name = key.partition(".")
            state.setdefault(int(index), {})[field_name] = value
        restored = optimizer.state_dict()
        restored["state"] = state
        optimizer.load_state_dict(restored)
    return progress


@dataclass(frozen=True)
class LoadedRun:
    """A finished run: the network with its final weights, its recipe and its report."""

    network: MultiBranchNet
    recipe: Recipe
    report: dict[str, object]
    path: Path


def load_run(folder: str | Path) -> LoadedRun:
    """Load a run folder without its data.

    Raises:
        RecipeError: when the folder is not a finished run.
    """
    path = Path(folder)
    missing = [n for n in (CHECKPOINT, "recipe.toml", "report.json") if not (path / n).exists()]
    if missing:
        raise RecipeError(f"{path}: not a finished run (no {', '.join(missing)}); train it first")
    recipe = load_recipe(path / "recipe.toml")
    with safe_open(path / CHECKPOINT, framework="pt", device="cpu") as stored:
        metadata = stored.metadata()
        state = {
            key.removeprefix("model."): stored.get_tensor(key)
            for key in stored.keys()
            if key.startswith("model.")
        }
    height, width = json.loads(metadata["input_size"])
    network = methods.build(
        recipe,
        tuple(json.loads(metadata["labels"])),
        (height, width),
        tuple(state["stem.pixel_mean"].tolist()),
        tuple(state["stem.pixel_std"].tolist()),
    )
    network.load_state_dict(state)
    network.eval()
    report = json.loads((path / "report.json").read_text())
    return LoadedRun(network, recipe, report, path)
