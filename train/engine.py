"""The training loop: pretraining, calibration, quantised training, checkpoints, evaluation.

Read :meth:`Trainer.run` from top to bottom; it is the whole experiment.
"""

from __future__ import annotations

import json
import math
import platform
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from train import accelerator, distributed, methods
from train.branches import MultiBranchNet
from train.checkpoint import (
    CHECKPOINT,
    Progress,
    TrainingError,
    load_checkpoint,
    save_checkpoint,
    write_beside,
)
from train.data import Dataset, generator, load_dataset, open_batches
from train.distributed import World
from train.evaluation import ALONE, evaluate, evaluate_full_precision
from train.failures import describe_ranges, largest_batch, not_finite, out_of_memory
from train.optimizers import build_optimizers, clip_gradients, decay
from train.quantizers import FULL_PRECISION, compile_quantizers
from train.recipe import Recipe, RecipeError, to_toml
from train.teacher import Teacher, open_teacher

Listener = Callable[[Progress, int, int, dict[int, float]], None]
"""Called with (progress, steps in the epoch, epochs in the phase, loss per level)."""


def build_network(recipe: Recipe, dataset: Dataset) -> MultiBranchNet:
    """A freshly initialised network for the dataset; the same for the same recipe."""
    mean, std = dataset.pixel_statistics()
    return methods.build(recipe, dataset.classes, dataset.input_size, mean, std)


class Paused(Exception):
    """The run stands at a checkpoint before its end, as asked; ``signalled``: by ``interrupt``."""

    def __init__(self, signalled: bool) -> None:
        super().__init__("paused at a checkpoint")
        self.signalled = signalled


class Trainer:
    """One run in one folder.

    Args:
        recipe: what to train.
        folder: where checkpoints and reports go; an unfinished run in it is resumed.
        listener: told of every step.
        world: the processes that train together; the first of them writes the files.
        until: minutes from now after which to pause.

    Attributes:
        interrupted: set it to pause at the end of the step.
        teacher: the external one that the recipe names, or None.

    Raises:
        RecipeError: when the folder holds a run of another recipe, the data are missing, the
            processes cannot share the batch, or the external teacher only guesses.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        listener: Listener | None = None,
        world: World = ALONE,
        until: float = math.inf,
    ) -> None:
        self._started = time.monotonic()
        self._deadline = self._started + 60.0 * until
        self.interrupted = False
        self.recipe = recipe
        self.folder = folder
        self.listener = listener
        self.world = world
        methods.check(recipe)
        self.method = methods.find(recipe.method)
        self.device = world.device()
        accelerator.prepare(self.device)
        accelerator.check(recipe.train, self.device, world.size)
        self.dtype = getattr(torch, recipe.train.precision)
        if recipe.train.compile:
            compile_quantizers()
        self.train_set = load_dataset(recipe.data, "train")
        self.test_set = load_dataset(recipe.data, "test")
        self.batches = open_batches(self.train_set, recipe.data, recipe.seed, self.device)
        self.network = build_network(recipe, self.train_set).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = build_optimizers(recipe, self.network)
        self.teacher = self._open_teacher()
        self.progress = load_checkpoint(folder, recipe, self.network, self.optimizers)
        self._averaging: Callable[..., Any] | None = None
        self._recordings: dict[str, accelerator.Replayed] = {}
        if world.size > 1:
            self._start_together()

    def run(self) -> dict[str, object]:
        """Train to the end of the recipe and return the report (also written to report.json).

        Raises:
            Paused: as asked, at a checkpoint from which the same recipe and folder continue.
            RecipeError: the external teacher knows less than the pretrained network.
            TrainingError: a loss or a weight that is not finite, no memory, or no room for a checkpoint.
        """
        recipe = self.recipe
        if self.world.first:
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

    def _start_together(self) -> None:
        """Make this process one of several that train the same network."""
        progress, size = self.progress, self.world.size
        if self.batches.batch % size:
            raise RecipeError(
                f"data.batch: {size} processes cannot share {self.batches.batch} images; choose a "
                f"multiple of {size}"
            )
        if not self.world.agree((progress.phase, progress.epoch, progress.step)):
            raise RecipeError(
                f"{self.folder}: the processes found different checkpoints there; --out has to be a "
                "folder that all machines share"
            )
        distributed.synchronise_norms(self.network, self.device)
        self._averaging = distributed.averaging(self.network)

    def _open_teacher(self) -> Teacher | None:
        """The network that teaches all levels besides their own, if the recipe names one."""
        folder = self.recipe.method.teacher_run
        if not folder:
            return None
        return open_teacher(folder, self.network.labels, self.test_set, self.device, self.world)

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
        if self.teacher and self.recipe.train.epochs:
            known = evaluate_full_precision(self.network, self.test_set, world=self.world)
            self.teacher.check(max(known.values()), self.test_set)
        drawn = [self.batches.get(-1, i)[0] for i in range(self._calibration_batches())]
        images = torch.cat(drawn) if drawn else None
        # Every process does the same with all images, as one alone would.
        with distributed.unsynchronised(self.network):
            options = self.recipe.method
            methods.calibrate(
                self.network, images, options.weight_sigmas, options.activation_ranges
            )
        self.world.copy_from_first(self.network)
        self.optimizers["weights"].state.clear()
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
            self._set_learning_rates(lr, done / total)
            images, labels = self.batches.get(
                first_epoch + self.progress.epoch,
                self.progress.step,
                self.world.rank,
                self.world.size,
            )
            losses, pause = self._step(images, labels)
            self._advance(losses, epochs)
            minutes = (time.monotonic() - last_saved) / 60.0
            if pause or minutes >= self.recipe.train.checkpoint_minutes:
                self._save_checkpoint()
                last_saved = time.monotonic()
            if pause:
                raise Paused(pause == "signal")

    def _set_learning_rates(self, lr: float, share: float) -> None:
        schedule = "cosine" if self.progress.phase == "pretrain" else self.recipe.train.schedule
        factor = decay(schedule, share)
        for name, start in (("weights", lr), ("ranges", self.recipe.train.quantizer_lr)):
            for group in self.optimizers[name].param_groups:
                group["lr"] = start * factor

    def _step(self, images: Tensor, labels: Tensor) -> tuple[dict[int, float], str]:
        """One update; returns the loss of each level and why to pause now, "" for not at all."""
        try:
            for optimizer in self.optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            losses, pause = self._gather(self._losses(images, labels))
            self._check_finite(losses)
            quantised = self.progress.phase == "quantised"
            if quantised:
                clip_gradients(self.network, self.recipe.train.clip_norm)
            self.optimizers["weights"].step()
            if quantised:
                balance = self.recipe.method.balance
                methods.balanced_step(self.network, self.optimizers["ranges"], balance)
                methods.guard(self.network)
            return losses, pause
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            reason = str(error).strip().partition("\n")[0]
        # Outside the handler, whose traceback still holds the step's tensors.
        raise self._too_large(images, labels, reason)

    def _losses(self, images: Tensor, labels: Tensor) -> dict[int, Tensor]:
        """Gradients of a batch, by a recording of this phase's step where the recipe asks for one."""
        if not self.recipe.train.cuda_graph:
            return self._backward(images, labels)
        phase = self.progress.phase
        if phase not in self._recordings:
            step = accelerator.Replayed(self._backward, self.network, images, labels)
            self._recordings = {phase: step}
        return self._recordings[phase](images, labels)

    def _backward(self, images: Tensor, labels: Tensor, together: bool = True) -> dict[int, Tensor]:
        averaging = self._averaging if together else None
        if self.progress.phase == "pretrain":
            full = partial(averaging, bits=FULL_PRECISION) if averaging else None
            return methods.backward_full_precision(
                self.network, images, labels, self.method, self.dtype, full
            )
        guide = self.teacher.probabilities(images) if self.teacher else None
        return methods.backward(
            self.network, images, labels, self.method, self.dtype, guide, averaging
        )

    def _gather(self, losses: dict[int, Tensor]) -> tuple[dict[int, float], str]:
        """Losses of the global batch, and a decision to pause in which all processes agree."""
        values = torch.stack(list(losses.values())).double()
        expired = self.world.first and time.monotonic() >= self._deadline
        asked = torch.tensor([self.interrupted, expired]).to(values)
        *means, interrupted, expired = self.world.sum(torch.cat([values, asked])).tolist()
        pause = "signal" if interrupted else "time" if expired else ""
        return {b: m / self.world.size for b, m in zip(losses, means, strict=True)}, pause

    def _check_finite(self, losses: dict[int, float]) -> None:
        bad = sorted(bits for bits, loss in losses.items() if not math.isfinite(loss))
        if bad:
            raise self._diverged(f"loss is not finite at level {bad} in {self._where()}")

    def _diverged(self, what: str) -> TrainingError:
        ranges = describe_ranges(self.network)
        return TrainingError(f"{what}; {ranges}. Lower the learning rate. {self._kept()}")

    def _too_large(self, images: Tensor, labels: Tensor, reason: str) -> TrainingError:
        """Find out on the network itself what batch would fit."""

        def trial(size: int) -> None:
            self.network.zero_grad(set_to_none=True)
            self._backward(images[:size], labels[:size], together=False)

        with distributed.unsynchronised(self.network):
            fits = largest_batch(trial, len(images)) * self.world.size
        advice = (
            f"{fits} would: --set data.batch={fits}, with a lower learning rate and another --out"
        )
        return TrainingError(
            f"data.batch: a batch of {len(images) * self.world.size} images does not fit into memory "
            f"in {self._where()} ({reason}); {advice if fits else 'not even 2 would'}. {self._kept()}"
        )

    def _where(self) -> str:
        progress = self.progress
        return f"{progress.phase} epoch {progress.epoch + 1}, step {progress.step + 1}"

    def _kept(self) -> str:
        if not (self.folder / CHECKPOINT).exists():
            return "There is no checkpoint yet"
        return f"The last checkpoint in {self.folder} is still good"

    def _advance(self, losses: dict[int, float], epochs: int) -> None:
        progress = self.progress
        progress.step += 1
        if self.listener:
            self.listener(progress, self.batches.steps, epochs, losses)
        if progress.step == self.batches.steps:
            progress.step = 0
            progress.epoch += 1
            entry: dict[str, float | str] = {"phase": progress.phase, "epoch": progress.epoch}
            entry |= {f"loss{bits}": value for bits, value in losses.items()}
            entry |= {f"accuracy{b}": a for b, a in self._epoch_accuracy().items()}
            progress.history.append(entry)
            self._save_checkpoint()

    def _epoch_accuracy(self) -> dict[int, float]:
        if self.progress.phase != "quantised":
            return evaluate_full_precision(self.network, self.test_set, world=self.world)
        return evaluate(self.network, self.test_set, world=self.world)

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
                images, _ = self.batches.get(-2, step, self.world.rank, self.world.size)
                features = self.network.stem(images)
                for bits in self.network.bits:
                    self.network.classify(features, bits)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def _report(self) -> dict[str, object]:
        accuracy = evaluate(self.network, self.test_set, world=self.world)
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
            "hardware": self._hardware(),
            "torch": torch.__version__,
            "wall_seconds": round(self.progress.seconds, 1),
            "history": self.progress.history,
        }
        if self.teacher:
            report["teacher"] = self.teacher.record()
        if self.world.first:
            write_beside(self.folder / "report.json", json.dumps(report, indent=1).encode())
        return report

    def _hardware(self) -> str:
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        else:
            name = f"{platform.machine()} cpu, {torch.get_num_threads()} threads"
        return name if self.world.size == 1 else f"{self.world.size} x {name}"

    def _save_checkpoint(self) -> None:
        # A gradient may overflow where the loss does not, and no loss follows the last step.
        if broken := not_finite(self.network):
            raise self._diverged(f"{broken} is not finite before {self._where()}")
        now = time.monotonic()
        self.progress.seconds += now - self._started
        self._started = now
        if self.world.first:
            save_checkpoint(self.folder, self.network, self.optimizers, self.progress)


def commit() -> str:
    """The commit of the code that trains, or "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
