"""Optimisers and learning rates of a recipe."""

from __future__ import annotations

import math
from typing import Any

import torch

from train.branches import MultiBranchNet
from train.recipe import Recipe, RecipeError


def build_optimizers(recipe: Recipe, network: MultiBranchNet) -> dict[str, torch.optim.Optimizer]:
    """The optimiser of the weights, which the recipe chooses, and Adam for the quantisers."""
    options = recipe.train
    if options.nesterov and (options.optimizer != "sgd" or options.momentum == 0):
        raise RecipeError("train.nesterov: needs train.optimizer sgd and a train.momentum above 0")
    parameters = network.model_parameters()
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if not options.norm_decay:  # vectors are biases and normalisations
        groups = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    weights: torch.optim.Optimizer
    if options.optimizer == "adam":
        weights = torch.optim.Adam(groups, lr=options.lr, weight_decay=options.weight_decay)
    else:
        weights = torch.optim.SGD(
            groups,
            lr=options.lr,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            nesterov=options.nesterov,
        )
    # As a group: a method whose quantisers train nothing is no error.
    ranges = torch.optim.Adam([{"params": network.range_parameters()}], lr=options.quantizer_lr)
    return {"weights": weights, "ranges": ranges}


def clip_gradients(network: MultiBranchNet, most: float) -> None:
    """Scale the weights' gradient down to the norm ``most`` where it is larger; 0 leaves it alone.

    In deep networks at 1 bit its norm can grow a millionfold within a few steps (docs/training.md).
    """
    if most > 0:
        torch.nn.utils.clip_grad_norm_(network.model_parameters(), most)


def decay(schedule: str, share: float) -> float:
    """Factor of the learning rate after a ``share`` (0..1) of the phase.

    "step" is MBQuant's: a tenth at epoch 100, a hundredth at epoch 150 of 200.
    """
    if schedule == "step":
        return 0.1 ** ((share >= 0.5) + (share >= 0.75))
    return 0.5 * (1.0 + math.cos(math.pi * share))
