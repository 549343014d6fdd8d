"""Quantisers and the convolution that uses them.

Everything here works in *integer form*: a quantiser returns codes (exact integers held in a float
tensor) and a convolution multiplies codes with the integer weights ``2q - 3``. The constant
``1 / (3 L)`` that turns the result into real units is left to the batch normalisation that always
follows (see :class:`train.branches.SwitchableBatchNorm`), so that training computes the very integers
that the device will compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHT_LEVELS = 3
"""Largest weight code: weights are always 2 bits wide."""

FULL_PRECISION = 0
"""Stands for "no quantisation" wherever a bit-width is expected (pretraining)."""

MIN_RANGE = 1e-3
"""Smallest ``upper - lower`` of a quantiser; below it the gradients would explode."""

HALF_NORMAL_STD = math.sqrt(1.0 - 2.0 / math.pi)
"""Standard deviation of |x| for a standard normal x."""


def largest_code(bits: int) -> int:
    """L = 2^bits - 1, the largest activation code."""
    return (1 << bits) - 1


def _codes(x: Tensor, lower: Tensor, upper: Tensor, levels: Tensor) -> Tensor:
    normalised = ((x.float() - lower) / (upper - lower)).clamp(0.0, 1.0)
    return torch.round(normalised * levels).to(x.dtype)


def _codes_backward(
    grad: Tensor, x: Tensor, lower: Tensor, upper: Tensor, levels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    normalised = (x.float() - lower) / (upper - lower)
    inside = (normalised >= 0.0) & (normalised <= 1.0)
    scaled = torch.where(inside, grad.float() * (levels / (upper - lower)), 0.0)
    weighted = scaled * normalised
    return scaled.to(x.dtype), (weighted - scaled).sum(), -weighted.sum()


class _Kernels:
    """The two elementwise passes of the quantiser, eager or compiled."""

    forward: Callable[..., Tensor] = staticmethod(_codes)
    backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = staticmethod(_codes_backward)


def compile_quantizers() -> None:
    """Fuse each pass of the quantiser with ``torch.compile`` (needs a C++ compiler on a CPU)."""
    torch._dynamo.config.recompile_limit = 64  # sizes, dtypes and layouts of a whole network
    _Kernels.forward = staticmethod(torch.compile(_codes, dynamic=True))
    _Kernels.backward = staticmethod(torch.compile(_codes_backward, dynamic=True))


class ClipUniform(torch.autograd.Function):
    """Uniform quantiser with trainable clipping range (MBQuant, equations 1 to 3).

    ``q = round(L * clip((x - l) / (u - l), 0, 1))``, round half to even. The straight-through
    estimator replaces the derivative of ``round`` by 1; clipped elements give no gradient to x, l or
    u, elements *on* the range's ends do. At ``x == l`` (all the zeros of a ReLU while l is 0) the
    gradient therefore reaches l.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, lower: Tensor, upper: Tensor, levels: Tensor) -> Tensor:
        ctx.save_for_backward(x, lower, upper, levels)
        # Detached, parameters and activations look alike to the compiler: fewer variants.
        result: Tensor = _Kernels.forward(x.detach(), lower.detach(), upper.detach(), levels)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        saved = (tensor.detach() for tensor in ctx.saved_tensors)
        grad_x, grad_lower, grad_upper = _Kernels.backward(grads[0], *saved)
        return grad_x, grad_lower, grad_upper, None


def quantize(x: Tensor, lower: Tensor, upper: Tensor, levels: Tensor) -> Tensor:
    """Codes 0..levels of ``x`` for the range ``[lower, upper]``; shapes and dtype of ``x``."""
    codes: Tensor = ClipUniform.apply(x, lower, upper, levels)  # type: ignore[no-untyped-call]
    return codes


class BranchConv(nn.Module):
    """A convolution of one branch: 2-bit weights, activations quantised to the requested bit-width.

    The weight range belongs to the branch and is the same at every bit-width, so one set of 2-bit
    codes is stored; the activation range is its own for every bit-width.

    Args:
        in_channels, out_channels, kernel_size, stride: as in ``torch.nn.Conv2d``; padding keeps the
            size at stride 1 and pads with code 0.
        bits: bit-widths at which the branch is used.
    """

    levels: Tensor
    weight_levels: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        bits: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.stride = stride
        self.padding = kernel_size // 2
        self.bits = bits
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.weight_lower = nn.Parameter(torch.tensor(-1.0))
        self.weight_upper = nn.Parameter(torch.tensor(1.0))
        self.act_lower = nn.Parameter(torch.zeros(len(bits)))
        self.act_upper = nn.Parameter(torch.ones(len(bits)))
        self.register_buffer(
            "levels", torch.tensor([float(largest_code(b)) for b in bits]), persistent=False
        )
        self.register_buffer("weight_levels", torch.tensor(3.0), persistent=False)
        self.calibrating = False

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """Convolve ``x`` ``[N, C, H, W]``; returns the accumulator in integer units.

        At ``FULL_PRECISION`` nothing is quantised and the result is in real units.
        """
        if bits == FULL_PRECISION:
            return F.conv2d(x, self.weight.to(x.dtype), None, self.stride, self.padding)
        index = self.bits.index(bits)
        if self.calibrating:
            self._calibrate_activations(x, index)
        codes = quantize(x, self.act_lower[index], self.act_upper[index], self.levels[index])
        return F.conv2d(codes, self.integer_weight().to(x.dtype), None, self.stride, self.padding)

    def integer_weight(self) -> Tensor:
        """The weights that the device multiplies with, ``2q - 3`` in {-3, -1, 1, 3}."""
        codes = quantize(self.weight, self.weight_lower, self.weight_upper, self.weight_levels)
        return 2.0 * codes - WEIGHT_LEVELS

    @torch.no_grad()
    def weight_codes(self) -> Tensor:
        """What 2 bits store: uint8 codes 0..3, ``[out, in, kh, kw]``."""
        codes = _codes(self.weight, self.weight_lower, self.weight_upper, self.weight_levels)
        return codes.to(torch.uint8)

    def activation_range(self, bits: int) -> tuple[float, float]:
        """(lower, upper) of the activation quantiser at ``bits``, in real units."""
        index = self.bits.index(bits)
        return float(self.act_lower[index]), float(self.act_upper[index])

    @torch.no_grad()
    def calibrate_weights(self, sigmas: float) -> None:
        """Start the weight range at +-``sigmas`` standard deviations of the branch's weights."""
        bound = float(sigmas * self.weight.std())
        self.weight_lower.fill_(-bound)
        self.weight_upper.fill_(bound)

    @torch.no_grad()
    def _calibrate_activations(self, x: Tensor, index: int) -> None:
        # Inputs are rectified; 3 * std / HALF_NORMAL_STD is 3 sigma of a half-normal distribution.
        values = x.float()
        lower = values.min()
        self.act_lower[index] = lower
        self.act_upper[index] = torch.maximum(
            3.0 * values.std() / HALF_NORMAL_STD, lower + MIN_RANGE
        )

    @torch.no_grad()
    def guard_ranges(self) -> None:
        """Keep ``upper - lower`` of every quantiser at ``MIN_RANGE`` or more."""
        self.act_upper.copy_(torch.maximum(self.act_upper, self.act_lower + MIN_RANGE))
        self.weight_upper.copy_(torch.maximum(self.weight_upper, self.weight_lower + MIN_RANGE))

    def range_parameters(self) -> list[nn.Parameter]:
        """The trainable clipping ranges (they have an optimiser of their own)."""
        return [self.weight_lower, self.weight_upper, self.act_lower, self.act_upper]
