"""What sets one training method apart from another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from train.branches import Topology
from train.recipe import MethodRecipe


@dataclass(frozen=True)
class Method:
    """A training method: its quantised network and its loss.

    Attributes:
        name: in recipes.
        title: for tables.
        source: the publication, and how far this follows it.
        bits: bit-widths that it can train.
        teacher: level that teaches a lower one: "none", the "highest", or the "next" higher one.
        soft: share of the teacher's distribution in a taught level's loss; labels have the rest.
        topology: arrangement of branches and quantisers for a recipe.
    """

    name: str
    title: str
    source: str
    bits: tuple[int, ...]
    teacher: str
    soft: float
    topology: Callable[[MethodRecipe], Topology]


def round_straight_through(x: Tensor) -> Tensor:
    """Round half to even; the gradient passes as if nothing had happened."""
    return x + (torch.round(x) - x).detach()


def floor_straight_through(x: Tensor) -> Tensor:
    """Round down; the gradient passes as if nothing had happened."""
    return x + (torch.floor(x) - x).detach()


def squash(weight: Tensor) -> Tensor:
    """Weights to 0..1: ``tanh(w) / (2 max|tanh w|) + 1/2`` (DoReFa-Net, arXiv 1606.06160).

    The gradient passes through the tangent and the maximum.
    """
    squashed = torch.tanh(weight)
    return squashed / (2.0 * squashed.abs().max()) + 0.5
