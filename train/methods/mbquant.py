"""MBQuant (Zhong et al., Pattern Recognition 158, 2025): branches with 2-bit weights, trained jointly.

Where paper and published code differ, this follows the code in the loss (cross-entropy and
distillation, half each), the mean over branches and one optimiser step a batch, and the paper in the
shared stem, in independent branches and in one weight range for each branch; the options of a recipe
give the other choices.
"""

from __future__ import annotations

from functools import partial

from train.branches import Topology, accumulator_unit, select_branches
from train.methods.spec import Method
from train.quantizers import BranchConv
from train.recipe import MethodRecipe


def topology(recipe: MethodRecipe) -> Topology:
    """Branches as the recipe asks for."""
    return Topology(
        conv=partial(BranchConv, per_filter=recipe.ranges == "filter"),
        unit=accumulator_unit(BranchConv),
        selection=select_branches(recipe.bits, recipe.selection),
        half=tuple(b for b in recipe.bits if b % 2),
        join=recipe.join,
        branch_stem=recipe.stem == "branch",
        shuffle=recipe.shuffle,
        published_half=recipe.half == "published",
    )


METHOD = Method(
    name="mbquant",
    title="MBQuant",
    source="Zhong et al., Pattern Recognition 158 (2025) 111061",
    bits=tuple(range(2, 9)),
    teacher="highest",
    soft=0.5,
    topology=topology,
)
