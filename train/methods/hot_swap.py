"""Reconstruction of "One Model for All Quantization" (arXiv 2105.01353), details inferred.

Only the abstract and the first lines of that paper could be consulted, and no official code exists:
one model serves 8 to 1 bits, and wavelet decomposition and reconstruction give each bit-width weights
of its own. Here a one-level orthonormal Haar transform splits each layer's weight matrix into four
bands, every level scales the bands by trained gains, and the inverse transform is quantised as in
DoReFa-Net, at 1 bit to ``sign(w) mean|w|``; activations are clipped as in PACT. Every level learns
from labels.

Two controls tell what a gain comes from: gains fixed at 1 (shared weights without wavelets), and the
same gains on four random orthonormal bands (gains without wavelets).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.branches import Topology, accumulator_unit
from train.methods.adabits import ClippedActivations
from train.methods.spec import Method, round_straight_through, squash
from train.networks import ConvShape
from train.quantizers import largest_code
from train.recipe import MethodRecipe

BANDS = 4


def haar(matrix: Tensor) -> Tensor:
    """One-level orthonormal 2-D Haar transform.

    Args:
        matrix: ``[rows, columns]``, both even.

    Returns:
        ``[4, rows / 2, columns / 2]``: low-low, low-high, high-low, high-high.
    """
    a, b = matrix[0::2, 0::2], matrix[0::2, 1::2]
    c, d = matrix[1::2, 0::2], matrix[1::2, 1::2]
    return 0.5 * torch.stack((a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d))


def inverse_haar(bands: Tensor) -> Tensor:
    """The inverse (and adjoint) of :func:`haar`."""
    low, horizontal, vertical, diagonal = bands
    rows, columns = low.shape
    quads = 0.5 * torch.stack(
        (
            low + horizontal + vertical + diagonal,
            low - horizontal + vertical - diagonal,
            low + horizontal - vertical - diagonal,
            low - horizontal - vertical + diagonal,
        )
    )
    return quads.reshape(2, 2, rows, columns).permute(2, 0, 3, 1).reshape(2 * rows, 2 * columns)


def random_rotation(size: int) -> Tensor:
    """An orthonormal ``[size, size]`` matrix, the same for the same size."""
    source = torch.Generator().manual_seed(size)
    square = torch.randn(size, size, generator=source, dtype=torch.float64)
    rotation: Tensor = torch.linalg.qr(square).Q
    return rotation.float()


class HotSwapConv(ClippedActivations):
    """Weights from scaled bands of one full-precision tensor.

    Args:
        bands: "wavelet", or a control: "fixed" (gains stay 1) or "random" (each 2x2 square of the
            matrix is rotated by a random orthonormal matrix instead of Haar's).
    """

    rotation: Tensor
    initial_upper = 10.0

    def __init__(
        self,
        shape: ConvShape,
        bits: tuple[int, ...],
        half_bits: tuple[int, ...] = (),
        bands: str = "wavelet",
    ) -> None:
        super().__init__(shape, bits, half_bits)
        self.gains = nn.Parameter(torch.ones(len(bits), BANDS), requires_grad=bands != "fixed")
        rotation = random_rotation(BANDS) if bands == "random" else torch.eye(BANDS)
        self.bands = bands
        self.register_buffer("rotation", rotation, persistent=False)

    def level_weight(self, bits: int) -> Tensor:
        """The full-precision weights ``[O, I / groups, k, k]`` of one level."""
        if self.bands == "fixed":
            return self.weight
        matrix = self.weight.flatten(1)
        rows, columns = matrix.shape
        # Odd sizes repeat their last row or column.
        padded = F.pad(matrix[None], (0, columns % 2, 0, rows % 2), mode="replicate")[0]
        bands = haar(padded)
        if self.bands == "random":
            bands = torch.einsum("ij,jrc->irc", self.rotation, bands)
        scaled = bands * self.gains[self.bits.index(bits)][:, None, None]
        if self.bands == "random":
            scaled = torch.einsum("ji,jrc->irc", self.rotation, scaled)
        return inverse_haar(scaled)[:rows, :columns].reshape(self.weight.shape)

    def integer_weight(self, bits: int) -> Tensor:
        weight = self.level_weight(bits)
        if bits == 1:
            # Batch normalisation absorbs the mean magnitude; the gradient needs it.
            real = weight / weight.detach().abs().mean()
            return real + (torch.where(weight >= 0, 1.0, -1.0) - real).detach()
        levels = float(largest_code(bits))
        return 2.0 * round_straight_through(squash(weight) * levels) - levels

    @staticmethod
    def weight_unit(bits: int) -> float:
        return float(largest_code(bits))

    def level_parameters(self) -> list[nn.Parameter]:
        own = super().level_parameters()
        return [*own, self.gains] if self.gains.requires_grad else own


def topology(recipe: MethodRecipe) -> Topology:
    """One branch for all levels."""
    conv = partial(HotSwapConv, bands=recipe.bands)
    return Topology(conv, accumulator_unit(HotSwapConv), {b: (1,) for b in recipe.bits})


METHOD = Method(
    name="hot-swap",
    title="Hot-swap (reconstruction)",
    source="reconstruction of arXiv 2105.01353, details inferred",
    bits=tuple(range(1, 9)),
    teacher="none",
    soft=0.0,
    topology=topology,
)
