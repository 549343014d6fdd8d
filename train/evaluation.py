"""Accuracy of every level on a whole test set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from train.branches import MultiBranchNet
from train.data import Dataset
from train.distributed import World

ALONE = World()


def evaluate(
    network: MultiBranchNet, dataset: Dataset, batch: int = 500, world: World = ALONE
) -> dict[int, float]:
    """Accuracy (0..1) of every level on ``dataset``, in float32 with running statistics.

    Several processes take every ``world.size``-th batch each; all get the same result.
    """

    def logits(features: Tensor) -> dict[int, Tensor]:
        return {bits: network.classify(features, bits) for bits in network.bits}

    return _accuracy(network, dataset, batch, world, logits)


def evaluate_full_precision(
    network: MultiBranchNet, dataset: Dataset, batch: int = 500, world: World = ALONE
) -> dict[int, float]:
    """The same with quantisers off: accuracy of every level's subset of branches."""
    return _accuracy(network, dataset, batch, world, network.classify_full_precision)


@torch.no_grad()
def _accuracy(
    network: MultiBranchNet,
    dataset: Dataset,
    batch: int,
    world: World,
    logits: Callable[[Tensor], dict[int, Tensor]],
) -> dict[int, float]:
    network.eval()
    device = network.classifier.weight.device
    correct = torch.zeros(len(network.bits), dtype=torch.int64, device=device)
    for pixels, truth in dataset.batches(batch, world.rank, world.size):
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        labels = torch.from_numpy(truth).to(device)
        features = network.stem(images.to(device).contiguous(memory_format=torch.channels_last))
        predicted = logits(features)
        correct += torch.stack([(predicted[b].argmax(1) == labels).sum() for b in network.bits])
    counts = world.sum(correct).tolist()
    return {b: count / len(dataset) for b, count in zip(network.bits, counts, strict=True)}
