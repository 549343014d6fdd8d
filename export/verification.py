"""Does the finished file compute what was trained? Asked of the file itself, before it is used.

Two comparisons, each at every level. With the oracle: logits of some images, which kernels and oracle
compute in one order; the tolerance is for kernels to come. With the trained network: accuracy on the
test set; the network computes in float32 what the file computes in integers, so an activation that
falls on the border between two codes may be rounded either way, and now and then an image near the
border between two classes changes sides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from export import integer
from export.integer import IntegerNetwork
from native_ops import Program
from train.branches import MultiBranchNet
from train.data import Dataset
from train.images import Images, Labels

LOGIT_TOLERANCE = 1e-4
"""Largest difference between logits of the file and of the oracle, relative to the largest."""
ACCURACY_TOLERANCE = 0.001
"""Largest difference in accuracy between the file and the trained network: 0.1 points."""

_BATCH = 250
_ORACLE_BATCH = 16

Classes = npt.NDArray[np.int64]
Advance = Callable[[int], None]


class VerificationError(RuntimeError):
    """The file does not compute what was trained; says at which level and by how much."""


@dataclass(frozen=True)
class LevelAccuracy:
    """Accuracy (0..1) of one level on one test set.

    trained: of the trained network with quantisers on; program: of the file.
    disagreements: images that the two classify differently.
    """

    bits: int
    branches: tuple[int, ...]
    trained: float
    program: float
    disagreements: int


def _ignore(_: int) -> None:
    pass


def classify_trained(
    network: MultiBranchNet, dataset: Dataset, advance: Advance = _ignore
) -> dict[int, Classes]:
    """Classes that the trained, fake-quantised network gives, int64 [N] for each level.

    Args:
        dataset: of N images, read as they are needed.
        advance: called with the number of images done since the last call.
    """
    network.eval()
    parts: dict[int, list[Classes]] = {bits: [] for bits in network.bits}
    with torch.inference_mode():
        for images, _ in dataset.batches(_BATCH):
            batch = torch.from_numpy(images).permute(0, 3, 1, 2)
            features = network.stem(batch.contiguous(memory_format=torch.channels_last))
            for bits, classes in parts.items():
                classes.append(network.classify(features, bits).argmax(1).numpy())
            advance(len(batch))
    return {bits: np.concatenate(classes) for bits, classes in parts.items()}


def classify_program(
    program: Program, dataset: Dataset, advance: Advance = _ignore
) -> dict[int, Classes]:
    """Classes that the file gives, int64 [N] for each level; arguments as above."""
    classes: dict[int, list[int]] = {bits: [] for bits in program.levels}
    for images, _ in dataset.batches(_BATCH):
        for image in images:
            for bits, found in classes.items():
                found.append(int(program.run(bits, image).argmax()))
        advance(len(images))
    return {bits: np.array(found, dtype=np.int64) for bits, found in classes.items()}


def compare_with_oracle(
    program: Program, network: IntegerNetwork, images: Images, advance: Advance = _ignore
) -> None:
    """Run images at every level in the file and in the oracle.

    Args:
        images: uint8 [N, H, W, 3].

    Raises:
        VerificationError: other levels than the network's, or the first image whose logits differ
            by more than LOGIT_TOLERANCE, or whose class differs by more than such a tie.
    """
    if program.levels != tuple(network.levels):
        raise VerificationError(
            f"{program.path}: has the levels {list(program.levels)}, the network has"
            f" {list(network.levels)}"
        )
    for start in range(0, len(images), _ORACLE_BATCH):
        batch = images[start : start + _ORACLE_BATCH]
        for bits in program.levels:
            expected = integer.run(network, bits, batch)
            actual = np.stack([program.run(bits, image) for image in batch])
            _compare_logits(f"{program.path}: {bits} bits", start, actual, expected)
        advance(len(batch))


def _compare_logits(
    where: str,
    first: int,
    actual: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
) -> None:
    for index, (ours, oracle) in enumerate(zip(actual, expected, strict=True), start=first):
        largest = float(np.abs(oracle).max())
        difference = float(np.abs(ours - oracle).max())
        # Written so that a NaN fails.
        if not difference <= LOGIT_TOLERANCE * largest:
            raise VerificationError(
                f"{where}: image {index}: logits differ from the oracle's by {difference:.3g}"
                f" (largest logit {largest:.3g}); kernels and export are out of step, rebuild both"
            )
        chosen, best = int(ours.argmax()), int(oracle.argmax())
        if oracle[best] - oracle[chosen] > LOGIT_TOLERANCE * largest:
            raise VerificationError(
                f"{where}: image {index}: class {chosen}, the oracle says {best}; kernels and"
                " export are out of step, rebuild both"
            )


def compare_accuracy(
    network: IntegerNetwork,
    labels: Labels,
    trained: dict[int, Classes],
    program: dict[int, Classes],
) -> tuple[LevelAccuracy, ...]:
    """Accuracy of the trained network and of the file at every level, ascending.

    Args:
        labels: int64 [N], the truth.
        trained, program: int64 [N] for each level, as `classify_trained` and `classify_program` give.
    """
    results = []
    for bits, level in network.levels.items():
        results.append(
            LevelAccuracy(
                bits=bits,
                branches=level.branches,
                trained=float((trained[bits] == labels).mean()),
                program=float((program[bits] == labels).mean()),
                disagreements=int((trained[bits] != program[bits]).sum()),
            )
        )
    return tuple(results)


def require_equal_accuracy(levels: Sequence[LevelAccuracy], images: int) -> None:
    """Refuse a file whose accuracy is not the trained network's.

    ACCURACY_TOLERANCE applies; where a single one of the test images is more than that, one image.

    Raises:
        VerificationError: names every level that is off.
    """
    # Accuracies are multiples of 1 / images; the margin keeps float64 rounding from deciding.
    allowed = max(ACCURACY_TOLERANCE, 1 / images) + 1e-9
    wrong = [level for level in levels if abs(level.program - level.trained) > allowed]
    if wrong:
        raise VerificationError(
            "accuracy of the file is not that of the trained network: "
            + "; ".join(
                f"{level.bits} bits {level.program:.2%} instead of {level.trained:.2%}"
                f" ({level.disagreements} of {images} images classified differently)"
                for level in wrong
            )
            + "; the run or the export is broken, do not use this file"
        )
