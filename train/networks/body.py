"""What all bodies are made of: the factories that a method plugs in, and the shape of a stem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class ConvShape:
    """One convolution of a body; the padding keeps the size at stride 1.

    half_in, half_out: channels that the half branch of odd bit-widths uses, the first ones of each.
    """

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    half_in: int
    half_out: int
    depthwise: bool = False

    @property
    def groups(self) -> int:
        return self.in_channels if self.depthwise else 1


class ConvFactory(Protocol):
    """Makes a module that is called with (x, bits)."""

    def __call__(self, shape: ConvShape) -> nn.Module: ...


class NormFactory(Protocol):
    """Makes a module that is called with (x, bits); ``half`` is its width in a half branch."""

    def __call__(self, channels: int, half: int) -> nn.Module: ...


@dataclass(frozen=True)
class StemShape:
    """The full-precision start of a network: convolution, BN, ReLU, and perhaps a max pool.

    pool: (kernel, stride, padding) or None.
    """

    channels: int
    kernel_size: int = 3
    stride: int = 1
    pool: tuple[int, int, int] | None = None


class Body(nn.Module):
    """A sequence of blocks: ``[N, stem channels, H, W]`` -> ``[N, width, H', W']``."""

    blocks: nn.ModuleList

    def forward(self, x: Tensor, bits: int) -> Tensor:
        for block in self.blocks:
            x = block(x, bits)
        return x


class NetworkSpec(Protocol):
    """A network that every method can train."""

    @property
    def stem(self) -> StemShape: ...

    @property
    def width(self) -> int:
        """Channels that the classifier sees."""

    def body(
        self, conv: ConvFactory, norm: NormFactory, *, published_half: bool, preactivation: bool
    ) -> Body:
        """A freshly initialised body.

        Args:
            published_half: the half branch's channel counts of the published code, where they differ
                from those that halve its cost.
            preactivation: normalisation before each convolution (residual networks only, the others
                have that order anyway).
        """
