"""Residual networks for small images (He et al., CVPR 2016), post-activation, 1x1 projections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

ConvFactory = Callable[[int, int, int, int], nn.Module]
"""(in_channels, out_channels, kernel_size, stride) -> module called with (x, bits)."""
NormFactory = Callable[[int], nn.Module]
"""channels -> module called with (x, bits)."""


@dataclass(frozen=True)
class BodySpec:
    """Shape of a residual body: channels of each stage, and blocks in each stage."""

    widths: tuple[int, ...]
    blocks: int

    @property
    def stem_channels(self) -> int:
        return self.widths[0]


NETWORKS: dict[str, BodySpec] = {
    "resnet20": BodySpec(widths=(16, 32, 64), blocks=3),
    "resnet8": BodySpec(widths=(16, 32, 64), blocks=1),
}


class BasicBlock(nn.Module):
    """``relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))``.

    The shortcut is the identity where the shape stays, and a 1x1 convolution with normalisation,
    quantised like every other one, where it changes.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, conv: ConvFactory, norm: NormFactory
    ) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, 3, stride)
        self.bn1 = norm(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3, 1)
        self.bn2 = norm(out_channels)
        self.shortcut: nn.Module | None = None
        self.bn_shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv(in_channels, out_channels, 1, stride)
            self.bn_shortcut = norm(out_channels)

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, C', H', W']``, both after a ReLU."""
        hidden = F.relu(self.bn1(self.conv1(x, bits), bits), inplace=True)
        out = self.bn2(self.conv2(hidden, bits), bits)
        identity = x
        if self.shortcut is not None and self.bn_shortcut is not None:
            identity = self.bn_shortcut(self.shortcut(x, bits), bits)
        return F.relu(out + identity, inplace=True)


class ResNetBody(nn.Module):
    """Stages of :class:`BasicBlock`; every stage but the first halves height and width."""

    def __init__(self, spec: BodySpec, conv: ConvFactory, norm: NormFactory) -> None:
        super().__init__()
        blocks: list[BasicBlock] = []
        channels = spec.stem_channels
        for stage, width in enumerate(spec.widths):
            for index in range(spec.blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(BasicBlock(channels, width, stride, conv, norm))
                channels = width
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """``[N, stem channels, H, W]`` -> ``[N, last width, H', W']``."""
        for block in self.blocks:
            x = block(x, bits)
        return x
