"""The training loop: pretraining, calibration, quantised training, checkpoints, evaluation.

Read :meth:`Trainer.run` from top to bottom; it is the whole experiment.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from train import methods
from train.branches import MultiBranchNet
from train.data import Batches, Dataset, generator, load_dataset
from train.quantizers import compile_quantizers
from train.recipe import Recipe, RecipeError, difference, load_recipe, to_toml

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


Listener = Callable[[Progress, int, int, dict[int, float]], None]
"""Called with (progress, steps in the epoch, epochs in the phase, loss per level)."""


def build_network(recipe: Recipe, dataset: Dataset) -> MultiBranchNet:
    """A freshly initialised network for the dataset; the same for the same recipe."""
    mean, std = dataset.pixel_statistics()
    height, width = dataset.images.shape[1:3]
    return methods.build(recipe, dataset.classes, (height, width), mean, std)


class Trainer:
    """One run in one folder.

    Args:
        recipe: what to train.
        folder: where checkpoints and reports go; an unfinished run in it is resumed.
        listener: told of every step.

    Raises:
        RecipeError: when the folder holds a run of another recipe, or the data are missing.
    """

    def __init__(self, recipe: Recipe, folder: Path, listener: Listener | None = None) -> None:
        self.recipe = recipe
        self.folder = folder
        self.listener = listener
        methods.check(recipe)
        self.method = methods.find(recipe.method)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = getattr(torch, recipe.train.precision)
        if recipe.train.compile:
            compile_quantizers()
        self.train_set = load_dataset(recipe.data, "train")
        self.test_set = load_dataset(recipe.data, "test")
        self.batches = Batches(self.train_set, recipe.data, recipe.seed, self.device)
        self.network = build_network(recipe, self.train_set).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.sgd = torch.optim.SGD(
            self.network.model_parameters(),
            lr=recipe.train.lr,
            momentum=recipe.train.momentum,
            weight_decay=recipe.train.weight_decay,
        )
        # As a group: a method whose quantisers train nothing is no error.
        ranges = {"params": self.network.range_parameters()}
        self.adam = torch.optim.Adam([ranges], lr=recipe.train.quantizer_lr)
        self.guide = self._load_guide()
        self.progress = Progress()
        self._started = time.monotonic()
        self._load_checkpoint()

    def run(self) -> dict[str, object]:
        """Train to the end of the recipe and return the report (also written to report.json)."""
        recipe = self.recipe
        self.folder.mkdir(parents=True, exist_ok=True)
        write_beside(self.folder / "recipe.toml", to_toml(recipe).encode())
        if self.progress.phase == "pretrain":
            if self.progress.epoch == 0 and self.progress.step == 0:
                self._initialise()
            self._epochs(recipe.pretrain.epochs, recipe.pretrain.lr)
            self._start_quantised()
        if self.progress.phase == "quantised":
            self._epochs(recipe.train.epochs, recipe.train.lr)
            self._reestimate_norms()
            self.progress.phase = "done"
            self._save_checkpoint()
        return self._report()

    def _load_guide(self) -> MultiBranchNet | None:
        """The full-precision network that teaches all levels, if the recipe names one."""
        folder = self.recipe.method.teacher_run
        if not folder:
            return None
        try:
            guide = load_run(folder).network
        except RecipeError as error:
            raise RecipeError(f"method.teacher_run: {error}") from None
        if guide.labels != self.network.labels or guide.input_size != self.network.input_size:
            raise RecipeError(
                f"method.teacher_run: {folder} knows other classes or another image size"
            )
        return guide.to(self.device)

    def _initialise(self) -> None:
        path = self.recipe.pretrain.init
        if not path:
            return
        try:
            state = load_file(path)
            methods.copy_full_precision(
                self.network, state, self.recipe.pretrain.init_noise, generator(self.recipe.seed)
            )
        except (OSError, KeyError, RuntimeError) as error:
            raise RecipeError(
                f"pretrain.init: {path}: not a full-precision network of this body ({error})"
            ) from None

    def _start_quantised(self) -> None:
        drawn = [self.batches.get(-1, i)[0] for i in range(self._calibration_batches())]
        images = torch.cat(drawn) if drawn else None
        methods.calibrate(self.network, images, self.recipe.method.weight_sigmas)
        self.sgd.state.clear()
        self.progress.phase, self.progress.epoch, self.progress.step = "quantised", 0, 0
        self._save_checkpoint()

    def _calibration_batches(self) -> int:
        wanted = math.ceil(self.recipe.method.calibration_images / self.batches.batch)
        return min(wanted, self.batches.steps)

    def _epochs(self, epochs: int, lr: float) -> None:
        """Train until ``epochs`` are done, starting where ``progress`` stands."""
        quantised = self.progress.phase == "quantised"
        # Pretraining draws other batches than quantised training.
        first_epoch = 1_000_000 * quantised
        total = max(1, epochs * self.batches.steps)
        last_saved = time.monotonic()
        while self.progress.epoch < epochs:
            self.network.train()
            done = self.progress.epoch * self.batches.steps + self.progress.step
            cosine = 0.5 * (1.0 + math.cos(math.pi * done / total))
            self.sgd.param_groups[0]["lr"] = lr * cosine
            self.adam.param_groups[0]["lr"] = self.recipe.train.quantizer_lr * cosine
            images, labels = self.batches.get(first_epoch + self.progress.epoch, self.progress.step)
            self.sgd.zero_grad(set_to_none=True)
            self.adam.zero_grad(set_to_none=True)
            losses = self._backward(images, labels)
            self._check_finite(losses)
            self.sgd.step()
            if quantised:
                methods.balanced_step(self.network, self.adam, self.recipe.method.balance)
                methods.guard(self.network)
            self._advance(losses, epochs)
            minutes = (time.monotonic() - last_saved) / 60.0
            if minutes >= self.recipe.train.checkpoint_minutes:
                self._save_checkpoint()
                last_saved = time.monotonic()

    def _backward(self, images: Tensor, labels: Tensor) -> dict[int, Tensor]:
        if self.progress.phase == "pretrain":
            return methods.backward_full_precision(
                self.network, images, labels, self.method, self.dtype
            )
        guide = None
        if self.guide is not None:
            with torch.no_grad():
                logits = self.guide.classify_full_precision(self.guide.stem(images))
            guide = logits[max(logits)].softmax(1)
        return methods.backward(self.network, images, labels, self.method, self.dtype, guide)

    def _check_finite(self, losses: dict[int, Tensor]) -> None:
        if torch.isfinite(torch.stack(list(losses.values()))).all():
            return
        bad = [bits for bits, loss in losses.items() if not torch.isfinite(loss)]
        raise TrainingError(
            f"loss is not finite at level {bad} in {self.progress.phase} epoch "
            f"{self.progress.epoch + 1}, step {self.progress.step + 1}; lower the learning rate. "
            f"The last checkpoint in {self.folder} is still good"
        )

    def _advance(self, losses: dict[int, Tensor], epochs: int) -> None:
        progress = self.progress
        progress.step += 1
        values = {bits: float(loss) for bits, loss in losses.items()}
        if self.listener:
            self.listener(progress, self.batches.steps, epochs, values)
        if progress.step == self.batches.steps:
            progress.step = 0
            progress.epoch += 1
            entry: dict[str, float | str] = {"phase": progress.phase, "epoch": progress.epoch}
            entry |= {f"loss{bits}": value for bits, value in values.items()}
            entry |= {f"accuracy{b}": a for b, a in self._epoch_accuracy().items()}
            progress.history.append(entry)
            self._save_checkpoint()

    def _epoch_accuracy(self) -> dict[int, float]:
        if self.progress.phase != "quantised":
            return evaluate_full_precision(self.network, self.test_set)
        return evaluate(self.network, self.test_set)

    def _reestimate_norms(self) -> None:
        """Replace running statistics by exact means over fresh batches, weights frozen.

        Weights that flip between two codes until the end leave running statistics of networks that
        no longer exist (Nagel et al., ICML 2022).
        """
        count = min(self.recipe.train.reestimate_batches, self.batches.steps)
        if count == 0:
            return
        norms = self.network.quantised_norms()
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
        self.network.train()
        with torch.no_grad():
            for step in range(count):
                images, _ = self.batches.get(-2, step)
                features = self.network.stem(images)
                for bits in self.network.bits:
                    self.network.classify(features, bits)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def _report(self) -> dict[str, object]:
        accuracy = evaluate(self.network, self.test_set)
        report: dict[str, object] = {
            "name": self.recipe.name,
            "method": self.recipe.method.name,
            "network": self.recipe.network.name,
            "accuracy": {str(bits): value for bits, value in accuracy.items()},
            "dataset": self.test_set.name,
            "train_images": len(self.train_set.labels),
            "pretrain_epochs": self.recipe.pretrain.epochs,
            "epochs": self.recipe.train.epochs,
            "seed": self.recipe.seed,
            "recipe_sha256": self.recipe.fingerprint(),
            "commit": commit(),
            "hardware": f"{platform.machine()} {self.device.type}, {torch.get_num_threads()} threads",
            "torch": torch.__version__,
            "wall_seconds": round(self.progress.seconds, 1),
            "history": self.progress.history,
        }
        write_beside(self.folder / "report.json", json.dumps(report, indent=1).encode())
        return report

    def _save_checkpoint(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._started
        self._started = now
        tensors = {f"model.{k}": v.contiguous() for k, v in self.network.state_dict().items()}
        for name, optimiser in (("sgd", self.sgd), ("adam", self.adam)):
            for index, values in optimiser.state_dict()["state"].items():
                for key, value in values.items():
                    if value is not None:
                        tensors[f"{name}.{index}.{key}"] = torch.as_tensor(value).contiguous()
        metadata = {
            "progress": json.dumps(asdict(self.progress)),
            "labels": json.dumps(self.network.labels),
            "input_size": json.dumps(self.network.input_size),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self.folder / f".{CHECKPOINT}.{os.getpid()}"
        save_file(tensors, beside, metadata)
        os.replace(beside, self.folder / CHECKPOINT)

    def _load_checkpoint(self) -> None:
        file = self.folder / CHECKPOINT
        if not file.exists():
            return
        theirs = load_recipe(self.folder / "recipe.toml")
        if theirs.fingerprint() != self.recipe.fingerprint():
            lines = "\n  ".join(difference(self.recipe, theirs))
            raise RecipeError(
                f"{self.folder} holds a run of another recipe; choose another folder with --out, "
                f"or delete it. Differences (yours != theirs):\n  {lines}"
            )
        with safe_open(file, framework="pt", device=str(self.device)) as stored:
            self.progress = Progress(**json.loads(stored.metadata()["progress"]))
            groups: dict[str, dict[str, Tensor]] = {"model": {}, "sgd": {}, "adam": {}}
            for key in stored.keys():
                group, _, rest = key.partition(".")
                groups[group][rest] = stored.get_tensor(key)
        self.network.load_state_dict(groups["model"])
        for name, optimiser in (("sgd", self.sgd), ("adam", self.adam)):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in groups[name].items():
                index, _, field_name = key.partition(".")
                state.setdefault(int(index), {})[field_name] = value
            restored = optimiser.state_dict()
            restored["state"] = state
            optimiser.load_state_dict(restored)


@torch.no_grad()
def evaluate(network: MultiBranchNet, dataset: Dataset, batch: int = 500) -> dict[int, float]:
    """Accuracy (0..1) of every level on ``dataset``, in float32 with running statistics."""

    def logits(features: Tensor) -> dict[int, Tensor]:
        return {bits: network.classify(features, bits) for bits in network.bits}

    return _accuracy(network, dataset, batch, logits)


def evaluate_full_precision(
    network: MultiBranchNet, dataset: Dataset, batch: int = 500
) -> dict[int, float]:
    """The same with quantisers off: accuracy of every level's subset of branches."""
    return _accuracy(network, dataset, batch, network.classify_full_precision)


@torch.no_grad()
def _accuracy(
    network: MultiBranchNet,
    dataset: Dataset,
    batch: int,
    logits: Callable[[Tensor], dict[int, Tensor]],
) -> dict[int, float]:
    network.eval()
    device = network.classifier.weight.device
    correct = dict.fromkeys(network.bits, 0)
    for start in range(0, len(dataset.labels), batch):
        images = torch.from_numpy(dataset.images[start : start + batch]).permute(0, 3, 1, 2)
        labels = torch.from_numpy(dataset.labels[start : start + batch]).to(device)
        features = network.stem(images.to(device).contiguous(memory_format=torch.channels_last))
        for bits, values in logits(features).items():
            correct[bits] += int((values.argmax(1) == labels).sum())
    return {bits: count / len(dataset.labels) for bits, count in correct.items()}


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


def write_beside(path: Path, data: bytes) -> None:
    """Write a file whole: beside its place, then renamed into it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    os.replace(beside, path)


def commit() -> str:
    """The commit of the code that trains, or "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
