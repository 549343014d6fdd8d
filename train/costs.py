"""What a network costs: multiplications and bit operations of each level, and bytes of storage.

Everything is counted while the network itself runs, on a batch of no images, so that every network and
method is covered, half branches included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from train import methods
from train.branches import MultiBranchNet
from train.methods.adabits import FloorConv
from train.methods.hot_swap import HotSwapConv
from train.quantizers import BranchConv
from train.recipe import Recipe

_FULL_PRECISION_BOPS = 32 * 32
_BRANCH_WEIGHT_BITS = 2
_FLOAT_BYTES = 4
_PAIR_BYTES = 2 * _FLOAT_BYTES
"""Scale and bias of a normalised channel, or the two ends of a quantiser's range."""


@dataclass(frozen=True)
class LevelCost:
    """One image at one level.

    Attributes:
        bits: of the activations.
        weight_bits: of the weights that they are multiplied with.
        body_macs: multiply-accumulates of the quantised convolutions of all branches that run.
        fixed_macs: of what is not quantised: stem, classifier, and full-precision shortcuts.
    """

    bits: int
    weight_bits: int
    body_macs: int
    fixed_macs: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates that a machine with 8-bit multipliers executes."""
        return self.body_macs + self.fixed_macs

    @property
    def bops(self) -> int:
        """Bit operations: multiply-accumulates times the bits of both operands, 32 where full.

        Normalisation, ReLU, pooling and additions do not count, as in the literature.
        """
        quantised = self.body_macs * self.weight_bits * self.bits
        return quantised + self.fixed_macs * _FULL_PRECISION_BOPS


@dataclass(frozen=True)
class Costs:
    """Costs of every level, and bytes that store all levels by the published rule."""

    levels: dict[int, LevelCost]
    storage_bytes: int


def recipe_costs(recipe: Recipe, classes: int, input_size: tuple[int, int]) -> Costs:
    """Costs of the network that a recipe trains.

    Args:
        classes: number of outputs.
        input_size: (height, width) of the images.

    Raises:
        RecipeError: options that do not go together.
    """
    with torch.device("meta"):
        labels = tuple(map(str, range(classes)))
        network = methods.build(recipe, labels, input_size, (0.0,) * 3, (1.0,) * 3)
    # Shapes are all that matters: memory without initialisation will do.
    network.to_empty(device="cpu").eval()
    counter = _Counter(network)
    levels = {}
    branched = any(isinstance(conv, BranchConv) for conv in network.convolutions())
    for bits in network.bits:
        body, fixed = counter.macs(bits)
        levels[bits] = LevelCost(bits, _BRANCH_WEIGHT_BITS if branched else bits, body, fixed)
    pairs = sum(norm.num_features for norm in counter.norms)
    if branched:
        # A range for each weight tensor, and one for the activations of each run of a convolution.
        # (Ranges for each filter end up in the normalisation's scale and bias.)
        pairs += len(list(network.convolutions())) + counter.runs
    return Costs(levels, _weight_bytes(network) + _PAIR_BYTES * pairs)


class _Counter(TorchFunctionMode):
    """Runs a network on no images and counts what it would multiply for one.

    Attributes:
        runs: of quantised convolutions, over all levels so far.
        norms: normalisations that ran.
    """

    def __init__(self, network: MultiBranchNet) -> None:
        super().__init__()
        self.network = network
        self.runs = 0
        self.norms: set[nn.BatchNorm2d] = set()
        self._quantised = False
        self._body = self._fixed = 0
        for conv in network.convolutions():
            conv.register_forward_pre_hook(self._enter)
            conv.register_forward_hook(self._leave)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(self._normalise)

    @torch.no_grad()
    def macs(self, bits: int) -> tuple[int, int]:
        """Multiply-accumulates of (quantised convolutions, everything else) at one level."""
        network, images = self.network, torch.empty(0, 3, *self.network.input_size)
        self._body = self._fixed = 0
        with self:
            network.stem(images)
        stem = self._fixed
        self._fixed = 0
        with self:
            network(images, bits)
        # Training runs the stems of all branches in one convolution; a level needs those of its own.
        idle = len(network.branches) - len(network.selection[bits])
        if network.topology.branch_stem:
            self._fixed -= stem * idle // len(network.branches)
        return self._body, self._fixed

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (F.conv2d, F.linear):
            # Every output value is a sum over one filter, which has what its group and branch read.
            macs = math.prod(result.shape[1:]) * args[1][0].numel()
            if self._quantised:
                self._body += macs
            else:
                self._fixed += macs
        return result

    def _enter(self, *_: object) -> None:
        self._quantised = True

    def _leave(self, *_: object) -> None:
        self._quantised = False
        self.runs += 1

    def _normalise(self, module: nn.BatchNorm2d, *_: object) -> None:
        self.norms.add(module)


def _weight_bytes(network: MultiBranchNet) -> int:
    """Bytes of all parameters but those of normalisations and of quantisers.

    Published sizes of MBQuant count 2 bits for each weight of each branch. AdaBits keeps the highest
    bit-width, of which the lower ones are the leading bits; Any-Precision and hot-swap keep float32.
    Stem, classifier and full-precision shortcuts are float32. Of a branch that is only ever halved
    (that of 7 bits without 8) nobody needs the other half.
    """
    total_bits = 0
    counted: set[nn.Parameter] = set()
    for conv in network.convolutions():
        if isinstance(conv, BranchConv):
            width = _BRANCH_WEIGHT_BITS
        else:
            width = max(network.bits) if isinstance(conv, FloorConv) else 8 * _FLOAT_BYTES
        total_bits += conv.stored_weights() * width
        if isinstance(conv, HotSwapConv):
            total_bits += conv.gains.numel() * 8 * _FLOAT_BYTES
        counted.update(conv.parameters())
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            counted.update(module.parameters())
    full = sum(p.numel() for p in network.parameters() if p not in counted)
    return -(-total_bits // 8) + _FLOAT_BYTES * full
