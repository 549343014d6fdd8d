"""Quantisers and the convolution that uses them.

Everything here works in *integer form*: a quantiser returns codes (exact integers held in a float
tensor) and a convolution multiplies codes with integer weights, ``2q - 3`` for 2 bits. The constant
that turns the result into real units, ``1 / (3 L)`` for 2 bits, is left to the batch normalisation that
always follows (see :class:`train.branches.SwitchableBatchNorm`), so that training computes the very
integers that the device will compute.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.networks import ConvShape

WEIGHT_LEVELS = 3
"""Largest weight code: weights are always 2 bits wide."""

FULL_PRECISION = 0
"""Stands for "no quantisation" wherever a bit-width is expected (pretraining)."""

MIN_RANGE = 1e-3
"""Smallest ``upper - lower`` of a quantiser; below it the gradients would explode."""

HALF_NORMAL_STD = math.sqrt(1.0 - 2.0 / math.pi)
"""Standard deviation of |x| for a standard normal x."""


FULL_PRECISION_HALF = -1
"""The same for a half branch."""


def largest_code(bits: int) -> int:
    """L = 2^bits - 1, the largest activation code."""
    return (1 << bits) - 1


@functools.cache
def least_squares_range(levels: int) -> float:
    """Upper end, in sigma, of the range 0.. in which codes 0..``levels`` fit a half-normal best.

    1.22 for 1 bit, 1.95 for 2, 4.25 for 8: what is clipped and what is rounded away balance.
    """
    x = torch.linspace(0.0, 8.0, 4001, dtype=torch.float64)
    density = torch.exp(-0.5 * x * x)

    def error(upper: float) -> float:
        step = upper / levels
        return float((density * (x - (x / step).round().clamp(max=levels) * step).square()).sum())

    return min((hundredth / 100.0 for hundredth in range(50, 700)), key=error)


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

    ``l`` and ``u`` are scalars, or one per filter (``[O, 1, 1, 1]``).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, lower: Tensor, upper: Tensor, levels: Tensor) -> Tensor:
        ctx.save_for_backward(x, lower, upper, levels)
        if lower.ndim:
            return _codes(x, lower, upper, levels)
        # Detached, parameters and activations look alike to the compiler: fewer variants.
        result: Tensor = _Kernels.forward(x.detach(), lower.detach(), upper.detach(), levels)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, lower, upper, levels = (tensor.detach() for tensor in ctx.saved_tensors)
        if lower.ndim:
            return *_filter_backward(grads[0], x, lower, upper, levels), None
        grad_x, grad_lower, grad_upper = _Kernels.backward(grads[0], x, lower, upper, levels)
        return grad_x, grad_lower, grad_upper, None


def _filter_backward(
    grad: Tensor, x: Tensor, lower: Tensor, upper: Tensor, levels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    normalised = (x - lower) / (upper - lower)
    inside = (normalised >= 0.0) & (normalised <= 1.0)
    scaled = torch.where(inside, grad * (levels / (upper - lower)), 0.0)
    weighted = scaled * normalised
    return (
        scaled,
        (weighted - scaled).sum((1, 2, 3), keepdim=True),
        -weighted.sum((1, 2, 3), keepdim=True),
    )


def quantize(x: Tensor, lower: Tensor, upper: Tensor, levels: Tensor) -> Tensor:
    """Codes 0..levels of ``x`` for the range ``[lower, upper]``; shapes and dtype of ``x``."""
    codes: Tensor = ClipUniform.apply(x, lower, upper, levels)  # type: ignore[no-untyped-call]
    return codes


class QuantizedConv(nn.Module, ABC):
    """A convolution of activation codes with integer weights; methods say how weights get there.

    Args:
        shape: channels, kernel, stride.
        bits: bit-widths at which it runs.
        half_bits: those of them at which only the half branch runs: the first ``half_out`` filters,
            of each the first ``half_in`` channels.
    """

    levels: Tensor
    trains_lower = True
    """Whether the lower end of the activation range is trained; else it stays at zero."""
    trains_upper = True
    """Whether the upper end is trained; else it stays where calibration put it."""
    initial_upper = 1.0
    """Upper end of the activation range before (or without) calibration."""

    def __init__(
        self, shape: ConvShape, bits: tuple[int, ...], half_bits: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.shape = shape
        self.stride, self.groups = shape.stride, shape.groups
        self.padding = shape.kernel_size // 2
        self.bits, self.half_bits = bits, half_bits
        self.weight = nn.Parameter(
            torch.empty(
                shape.out_channels,
                shape.in_channels // shape.groups,
                shape.kernel_size,
                shape.kernel_size,
            )
        )
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.act_lower = nn.Parameter(torch.zeros(len(bits)), requires_grad=self.trains_lower)
        self.act_upper = nn.Parameter(
            torch.full((len(bits),), self.initial_upper), requires_grad=self.trains_upper
        )
        self.register_buffer(
            "levels", torch.tensor([float(largest_code(b)) for b in bits]), persistent=False
        )
        self.calibrating = ""

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """Convolve ``x`` ``[N, C, H, W]``; returns the accumulator in integer units.

        At ``FULL_PRECISION`` nothing is quantised and the result is in real units.
        """
        half = bits == FULL_PRECISION_HALF or bits in self.half_bits
        if half:
            x = x[:, : self.shape.half_in]
        if bits <= FULL_PRECISION:
            return self._convolve(x, self.weight, half)
        index = self.bits.index(bits)
        if self.calibrating:
            self._calibrate_activations(x, index)
        codes = quantize(x, self.act_lower[index], self.act_upper[index], self.levels[index])
        return self._convolve(codes, self.integer_weight(bits), half)

    def _convolve(self, x: Tensor, weight: Tensor, half: bool) -> Tensor:
        groups = self.groups
        if half:
            weight = self._half(weight)
            groups = self.shape.half_in if groups > 1 else 1
        return F.conv2d(x, weight.to(x.dtype), None, self.stride, self.padding, 1, groups)

    def stored_weights(self) -> int:
        """Weights that some bit-width multiplies with: of a branch that is only ever halved, half."""
        if set(self.bits) <= set(self.half_bits):
            return self._half(self.weight).numel()
        return self.weight.numel()

    def _half(self, weight: Tensor) -> Tensor:
        """The part of ``weight`` that the half branch uses."""
        inputs = 1 if self.groups > 1 else self.shape.half_in
        return weight[: self.shape.half_out, :inputs]

    @abstractmethod
    def integer_weight(self, bits: int) -> Tensor:
        """Odd or even integers ``[O, I / groups, k, k]``, exact in bfloat16."""

    @staticmethod
    @abstractmethod
    def weight_unit(bits: int) -> float:
        """What an integer weight has to be divided by to lie in -1..1."""

    def activation_range(self, bits: int) -> tuple[float, float]:
        """(lower, upper) of the activation quantiser at ``bits``, in real units."""
        index = self.bits.index(bits)
        return float(self.act_lower[index].detach()), float(self.act_upper[index].detach())

    def calibrate_weights(self, sigmas: float) -> None:
        """Start what the weights' quantiser trains, if it trains anything."""

    @torch.no_grad()
    def _calibrate_activations(self, x: Tensor, index: int) -> None:
        # Inputs are rectified; std / HALF_NORMAL_STD is sigma of a half-normal distribution.
        values = x.float()
        sigmas = 3.0
        if self.calibrating == "least-squares":
            sigmas = least_squares_range(largest_code(self.bits[index]))
        if self.trains_lower:
            self.act_lower[index] = values.min()
        self.act_upper[index] = torch.maximum(
            sigmas * values.std() / HALF_NORMAL_STD, self.act_lower[index] + MIN_RANGE
        )

    def ranges(self) -> list[tuple[Tensor, Tensor]]:
        """(lower, upper) of every quantiser, as parameters."""
        return [(self.act_lower, self.act_upper)]

    def level_parameters(self) -> list[nn.Parameter]:
        """What is trained for each bit-width on its own, ``[bits, ...]``."""
        return [p for p in (self.act_lower, self.act_upper) if p.requires_grad]

    def range_parameters(self) -> list[nn.Parameter]:
        """All that the quantisers train (it has an optimiser of its own)."""
        return self.level_parameters()


class BranchConv(QuantizedConv):
    """A convolution of an MBQuant branch: 2-bit weights whatever the bit-width of the activations.

    The weight range belongs to the branch and is the same at every bit-width, so one set of 2-bit
    codes is stored; the activation range is its own for every bit-width.

    Args:
        per_filter: a weight range for each filter instead of one for the tensor. Codes stay codes and
            batch normalisation absorbs the scale, so that costs nothing at inference.
    """

    weight_levels: Tensor

    def __init__(
        self,
        shape: ConvShape,
        bits: tuple[int, ...],
        half_bits: tuple[int, ...] = (),
        per_filter: bool = False,
    ) -> None:
        super().__init__(shape, bits, half_bits)
        ranges = (shape.out_channels, 1, 1, 1) if per_filter else ()
        self.weight_lower = nn.Parameter(torch.full(ranges, -1.0))
        self.weight_upper = nn.Parameter(torch.full(ranges, 1.0))
        self.register_buffer("weight_levels", torch.tensor(3.0), persistent=False)

    def integer_weight(self, bits: int = 2) -> Tensor:
        """The weights that the device multiplies with, ``2q - 3`` in {-3, -1, 1, 3}."""
        codes = quantize(self.weight, self.weight_lower, self.weight_upper, self.weight_levels)
        return 2.0 * codes - WEIGHT_LEVELS

    @staticmethod
    def weight_unit(bits: int) -> float:
        return float(WEIGHT_LEVELS)

    @torch.no_grad()
    def weight_codes(self) -> Tensor:
        """What 2 bits store: uint8 codes 0..3, ``[out, in / groups, kh, kw]``."""
        codes = _codes(self.weight, self.weight_lower, self.weight_upper, self.weight_levels)
        return codes.to(torch.uint8)

    @torch.no_grad()
    def calibrate_weights(self, sigmas: float) -> None:
        """Start the weight range at +-``sigmas`` standard deviations of the branch's weights.

        A range per filter is centred on the filter's mean.
        """
        if self.weight_lower.ndim:
            centre = self.weight.mean((1, 2, 3), keepdim=True)
            bound = (sigmas * self.weight.std((1, 2, 3), keepdim=True)).clamp_min(MIN_RANGE)
            self.weight_lower.copy_(centre - bound)
            self.weight_upper.copy_(centre + bound)
            return
        bound = sigmas * self.weight.std()
        self.weight_lower.fill_(-float(bound))
        self.weight_upper.fill_(float(bound))

    def ranges(self) -> list[tuple[Tensor, Tensor]]:
        return [*super().ranges(), (self.weight_lower, self.weight_upper)]

    def range_parameters(self) -> list[nn.Parameter]:
        return [self.weight_lower, self.weight_upper, *super().range_parameters()]
