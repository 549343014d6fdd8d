"""An external teacher: a finished run that teaches every level of another one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from train.branches import MultiBranchNet
from train.checkpoint import load_run
from train.data import Dataset
from train.distributed import World
from train.evaluation import evaluate, evaluate_full_precision
from train.quantizers import FULL_PRECISION
from train.recipe import RecipeError

CERTAIN = 3.0
"""Standard errors of an accuracy beyond which a difference is none of the test set's."""


@dataclass(frozen=True)
class Teacher:
    """A network that has been asked what it knows.

    Attributes:
        folder: of its run.
        bits: level that teaches, or ``FULL_PRECISION``.
        accuracy: of that on the test set, 0..1.
    """

    folder: Path
    network: MultiBranchNet
    bits: int
    accuracy: float

    @property
    def source(self) -> str:
        """What of the network teaches."""
        return f"{self.bits} bits" if self.bits else "full precision"

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Images ``[N, 3, H, W]`` in 0..255 -> class probabilities ``[N, classes]``."""
        features = self.network.stem(images)
        if self.bits == FULL_PRECISION:
            logits = self.network.classify_full_precision(features)
            return logits[max(logits)].softmax(1)
        return self.network.classify(features, self.bits).softmax(1)

    def describe(self) -> str:
        """One line for the terminal."""
        return f"teacher {self.folder}: {self.accuracy:.2%} on the test set, {self.source}"

    def record(self) -> dict[str, object]:
        """The same for the report."""
        return {"run": str(self.folder), "network": self.source, "accuracy": self.accuracy}

    def check(self, student: float, test_set: Dataset) -> None:
        """Refuse to teach a network whose accuracy without quantisers is ``student`` (0..1).

        Raises:
            RecipeError: the teacher guesses, or knows clearly less than the network itself.
        """
        counts = torch.from_numpy(test_set.labels).bincount()
        guess = float(counts.max()) / len(test_set)
        needed = required(guess, student, len(test_set))
        if self.accuracy >= needed:
            return
        against = f"the network that it shall teach {student:.2%} after its own pretraining"
        if student <= guess:
            against = f"always naming the most frequent class {guess:.2%}"
        raise RecipeError(
            f"method.teacher_run: {self.folder} answers {self.accuracy:.2%} of the test set rightly "
            f"({self.source}), {against}; it has to reach {needed:.2%}. Train it longer (give it "
            "pretrain.epochs: 1x1 projections start from noise, whatever pretrain.init holds), or "
            'go without it: --set method.teacher_run=""'
        )


def required(guess: float, student: float, images: int) -> float:
    """Accuracy (0..1) from which a teacher on a test set of ``images`` teaches more than it spoils.

    ``guess`` is the share of the most frequent class. A teacher has to beat it beyond what the test
    set leaves to chance. It may be as good as its student, since its doubts teach, too, but not worse
    beyond that chance.
    """

    def margin(accuracy: float) -> float:
        return CERTAIN * math.sqrt(accuracy * (1.0 - accuracy) / images)

    # A handful of images proves nothing: there, half way between guessing and certainty.
    knows = min(guess + margin(guess), 0.5 * (1.0 + guess))
    return max(knows, student - margin(student))


def open_teacher(
    folder: str, labels: Sequence[str], test_set: Dataset, device: torch.device, world: World
) -> Teacher:
    """Load a finished run and measure what it knows.

    A run with quantised epochs teaches at its highest level: its full-precision normalisations keep
    statistics of weights that have moved on. Any other teaches in full precision.

    Raises:
        RecipeError: no finished run, other classes or images, or a network that only guesses.
    """
    try:
        run = load_run(folder)
    except RecipeError as error:
        raise RecipeError(f"method.teacher_run: {error}") from None
    network = run.network.to(device)
    if network.labels != tuple(labels) or network.input_size != test_set.input_size:
        raise RecipeError(f"method.teacher_run: {folder} knows other classes or another image size")
    bits = max(network.bits) if run.recipe.train.epochs else FULL_PRECISION
    measure = evaluate if bits else evaluate_full_precision
    accuracy = measure(network, test_set, world=world)[max(network.bits)]
    teacher = Teacher(run.path, network, bits, accuracy)
    teacher.check(0.0, test_set)
    return teacher
