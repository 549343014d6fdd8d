"""Networks and images small enough for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from train import methods
from train.branches import MultiBranchNet
from train.data import DataRecipe, load_dataset
from train.networks import NETWORKS, BodySpec, MobileNetSpec, NetworkSpec, VGGSpec
from train.recipe import MethodRecipe, NetworkRecipe, Recipe

# Settings of a run on digits that takes seconds.
SHORT_RUN = [
    "network.name=resnet8",
    "pretrain.epochs=1",
    "train.epochs=1",
    "data.batch=256",
    "train.reestimate_batches=2",
    "train.checkpoint_minutes=0",
]
# The smallest images that leave every network at least one pixel.
SIDES = {"resnet18": 16, "resnet34": 16, "vgg11": 32, "mobilenetv1": 32}
# Large networks at a quarter of their width: the same layers, in seconds instead of minutes.
NARROW = 4


def narrow(spec: NetworkSpec) -> NetworkSpec:
    """The same network at a quarter of its width."""

    def divided(values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(value // NARROW for value in values)

    if isinstance(spec, BodySpec):
        return dataclasses.replace(spec, widths=divided(spec.widths), half=divided(spec.half))
    assert isinstance(spec, (VGGSpec, MobileNetSpec))
    stem = dataclasses.replace(spec.stem, channels=spec.stem.channels // NARROW)
    return dataclasses.replace(
        spec, stem=stem, widths=divided(spec.widths), half=divided(spec.half)
    )


@contextmanager
def narrowed(network: str) -> Iterator[int]:
    """Within it the large networks are small enough; gives the side of the images."""
    side, whole = SIDES.get(network, 8), NETWORKS[network]
    if side > 8:
        NETWORKS[network] = narrow(whole)
    try:
        yield side
    finally:
        NETWORKS[network] = whole


def build(recipe: MethodRecipe, network: str = "resnet8", side: int = 8) -> MultiBranchNet:
    """A network for ten classes of square images."""
    return methods.build(
        Recipe(network=NetworkRecipe(network), method=recipe),
        tuple("0123456789"),
        (side, side),
        (78.0,) * 3,
        (96.0,) * 3,
    )


def digits(count: int, side: int = 8) -> tuple[Tensor, Tensor]:
    """The first training digits, each pixel repeated to reach ``side``, and their labels."""
    dataset = load_dataset(DataRecipe(), "train")
    images = torch.from_numpy(dataset.images[:count]).permute(0, 3, 1, 2)
    images = images.repeat_interleave(side // 8, 2).repeat_interleave(side // 8, 3)
    return images.contiguous(), torch.from_numpy(dataset.labels[:count])
