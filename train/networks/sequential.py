"""Networks without shortcuts: VGG11 with batch normalisation, and MobileNetV1.

VGG: Simonyan and Zisserman, ICLR 2015, in its form for 32x32 images with one linear classifier.
MobileNetV1: Howard et al., arXiv 1704.04861.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from train.networks.body import Body, ConvFactory, ConvShape, NormFactory, StemShape


@dataclass(frozen=True)
class LayerShape:
    """One convolution with normalisation and ReLU, and perhaps a 2x2 max pool after them."""

    conv: ConvShape
    pool: bool = False


class ConvBlock(nn.Module):
    """``pool(relu(bn(conv(x))))``."""

    def __init__(self, shape: LayerShape, conv: ConvFactory, norm: NormFactory) -> None:
        super().__init__()
        self.conv = conv(shape.conv)
        self.bn = norm(shape.conv.out_channels, shape.conv.half_out)
        self.pool = shape.pool

    def forward(self, x: Tensor, bits: int) -> Tensor:
        x = F.relu(self.bn(self.conv(x, bits), bits), inplace=True)
        return F.max_pool2d(x, 2) if self.pool else x


class SequentialBody(Body):
    """:class:`ConvBlock` after :class:`ConvBlock`."""

    def __init__(self, shapes: list[LayerShape], conv: ConvFactory, norm: NormFactory) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ConvBlock(shape, conv, norm) for shape in shapes)


@dataclass(frozen=True)
class SequentialSpec(ABC):
    """widths: of the dense convolutions after the stem; half: their widths in a half branch."""

    stem: StemShape
    widths: tuple[int, ...]
    half: tuple[int, ...]

    @property
    def width(self) -> int:
        return self.widths[-1]

    @abstractmethod
    def layers(self) -> Iterator[LayerShape]:
        """In order of execution."""

    def body(
        self, conv: ConvFactory, norm: NormFactory, *, published_half: bool, preactivation: bool
    ) -> Body:
        return SequentialBody(list(self.layers()), conv, norm)


@dataclass(frozen=True)
class VGGSpec(SequentialSpec):
    """3x3 convolutions; pools: after which of them the size is halved."""

    pools: tuple[bool, ...]

    def layers(self) -> Iterator[LayerShape]:
        channels = half = self.stem.channels
        for width, pool, half_width in zip(self.widths, self.pools, self.half, strict=True):
            yield LayerShape(ConvShape(channels, width, 3, 1, half, half_width), pool)
            channels, half = width, half_width


@dataclass(frozen=True)
class MobileNetSpec(SequentialSpec):
    """Pairs of a 3x3 depthwise convolution, with its stride, and a 1x1 convolution."""

    strides: tuple[int, ...]

    def layers(self) -> Iterator[LayerShape]:
        channels = half = self.stem.channels
        for width, stride, half_width in zip(self.widths, self.strides, self.half, strict=True):
            yield LayerShape(ConvShape(channels, channels, 3, stride, half, half, depthwise=True))
            yield LayerShape(ConvShape(channels, width, 1, 1, half, half_width))
            channels, half = width, half_width
