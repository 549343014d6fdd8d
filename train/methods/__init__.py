"""Training methods: each is a quantised network and a loss; what they share is in ``joint``."""

from __future__ import annotations

import dataclasses

import torch

from train.branches import MultiBranchNet
from train.methods import adabits, any_precision, dedicated, hot_swap, mbquant
from train.methods.joint import (
    backward,
    backward_full_precision,
    balanced_step,
    calibrate,
    copy_full_precision,
    guard,
)
from train.methods.spec import Method
from train.networks import NETWORKS, BodySpec
from train.recipe import MethodRecipe, Recipe, RecipeError

__all__ = [
    "METHODS",
    "Method",
    "backward",
    "backward_full_precision",
    "balanced_step",
    "build",
    "calibrate",
    "check",
    "copy_full_precision",
    "find",
    "guard",
]

METHODS: dict[str, Method] = {
    module.METHOD.name: module.METHOD
    for module in (mbquant, dedicated, any_precision, adabits, hot_swap)
}


def find(recipe: MethodRecipe) -> Method:
    """The method of a recipe, with the recipe's choice of teacher."""
    method = METHODS[recipe.name]
    if not recipe.distillation or recipe.teacher == "none":
        return dataclasses.replace(method, teacher="none", soft=0.0)
    if recipe.teacher == "auto":
        return method
    return dataclasses.replace(method, teacher=recipe.teacher, soft=method.soft or 0.5)


def check(recipe: Recipe) -> None:
    """Refuse a combination of options that no method can train.

    Raises:
        RecipeError: names the keys.
    """
    options, method = recipe.method, METHODS[recipe.method.name]
    wrong = [b for b in options.bits if b not in method.bits]
    if wrong:
        raise RecipeError(
            f"method.bits: {method.name} trains {method.bits[0]} to {method.bits[-1]} bits"
            f" (got {wrong})"
        )
    if method.name == "dedicated" and len(options.bits) != 1:
        raise RecipeError(
            f"method.bits: a dedicated network has one level (got {list(options.bits)}); train one"
            " network for each"
        )
    branched = method.name in ("mbquant", "dedicated")
    defaults = MethodRecipe()
    for key, only in (
        ("selection", "mbquant"),
        ("join", "mbquant"),
        ("stem", "mbquant"),
        ("shuffle", "mbquant"),
        ("half", "mbquant"),
        ("ranges", "mbquant"),
        ("quantizer", "adabits"),
        ("bands", "hot-swap"),
    ):
        applies = branched if only == "mbquant" else method.name == only
        if not applies and getattr(options, key) != getattr(defaults, key):
            raise RecipeError(f"method.{key}: has a meaning for {only} only, not for {method.name}")
    if branched and options.calibration_images == 0:
        raise RecipeError("method.calibration_images: branches have no constant to start from")
    if options.shuffle:
        if not isinstance(NETWORKS[recipe.network.name], BodySpec):
            raise RecipeError("method.shuffle: only residual networks have blocks to shuffle in")
        if any(b % 2 and b > 4 for b in options.bits):
            raise RecipeError(
                "method.shuffle: not with 5 or 7 bits, whose branches differ in width"
            )


def build(
    recipe: Recipe,
    labels: tuple[str, ...],
    input_size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> MultiBranchNet:
    """A freshly initialised network, the same for the same recipe.

    Args:
        labels: class names.
        input_size: (height, width).
        mean, std: of the pixels, per channel, 0..255.

    Raises:
        RecipeError: options that do not go together.
    """
    check(recipe)
    topology = METHODS[recipe.method.name].topology(recipe.method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return MultiBranchNet(
            recipe.network.name,
            labels,
            input_size,
            recipe.method.bits,
            mean,
            std,
            topology,
            recipe.network.stem_bits,
        )
