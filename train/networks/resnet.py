"""Residual networks (He et al., CVPR 2016): post-activation with 1x1 projections, or pre-activation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from train.networks.body import Body, ConvFactory, ConvShape, NormFactory, StemShape


@dataclass(frozen=True)
class BodySpec:
    """Shape of a residual body: channels of each stage, and blocks in each stage.

    half: channels of each stage in the half branch of odd bit-widths.
    narrow_half: those of the published code where it has others. There the first convolution of
        every block reads only as many channels as the stage before has, half of the stem's in the
        first stage; the identity keeps all.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    half: tuple[int, ...]
    narrow_half: tuple[int, ...] | None = None
    stem_kernel: int = 3
    stem_stride: int = 1
    stem_pool: tuple[int, int, int] | None = None

    @property
    def stem(self) -> StemShape:
        return StemShape(self.widths[0], self.stem_kernel, self.stem_stride, self.stem_pool)

    @property
    def width(self) -> int:
        return self.widths[-1]

    def body(
        self, conv: ConvFactory, norm: NormFactory, *, published_half: bool, preactivation: bool
    ) -> Body:
        shapes = self.shapes(published_half)
        if preactivation:
            return PreActivationBody(shapes, norm, conv)
        return ResNetBody(shapes, conv, norm)

    def shapes(self, published_half: bool = False) -> list[BlockShape]:
        """The blocks in order of execution."""
        narrow = self.narrow_half if published_half else None
        half_widths = narrow or self.half
        shapes: list[BlockShape] = []
        channels = half = self.stem.channels
        previous_half = half_widths[0] // 2
        for stage, (width, half_width) in enumerate(zip(self.widths, half_widths, strict=True)):
            for index in range(self.blocks[stage]):
                last = stage == len(self.widths) - 1 and index == self.blocks[stage] - 1
                reads = previous_half if narrow and index > 0 else half
                shapes.append(
                    BlockShape(
                        channels,
                        width,
                        stride=2 if stage > 0 and index == 0 else 1,
                        half_in=reads,
                        half_hidden=half_width,
                        half_out=width if last else half_width,
                    )
                )
                channels, half = width, half_width
            previous_half = half_width
        return shapes


@dataclass(frozen=True)
class BlockShape:
    """Channels and stride of one block; the ``half_`` counts are those of the half branch."""

    in_channels: int
    out_channels: int
    stride: int
    half_in: int
    half_hidden: int
    half_out: int

    @property
    def projects(self) -> bool:
        return self.stride != 1 or self.in_channels != self.out_channels

    def conv1(self) -> ConvShape:
        return ConvShape(
            self.in_channels, self.out_channels, 3, self.stride, self.half_in, self.half_hidden
        )

    def conv2(self) -> ConvShape:
        return ConvShape(
            self.out_channels, self.out_channels, 3, 1, self.half_hidden, self.half_out
        )

    def shortcut(self) -> ConvShape:
        return ConvShape(
            self.in_channels, self.out_channels, 1, self.stride, self.half_in, self.half_out
        )


class BasicBlock(nn.Module):
    """``relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))``.

    The shortcut is the identity where the shape stays, and a 1x1 convolution with normalisation,
    quantised like every other one, where it changes. In a half branch the identity is cut after the
    stem, and zeros are appended to it at the end, where the classifier needs all channels.

    Branches can run side by side: between ``main`` and ``finish`` they may exchange channels, which
    the published variant of MBQuant does where ``mixes`` is set.
    """

    def __init__(self, shape: BlockShape, conv: ConvFactory, norm: NormFactory) -> None:
        super().__init__()
        self.mixes = shape.projects
        self.conv1 = conv(shape.conv1())
        self.bn1 = norm(shape.out_channels, shape.half_hidden)
        self.conv2 = conv(shape.conv2())
        self.bn2 = norm(shape.out_channels, shape.half_out)
        self.shortcut: nn.Module | None = None
        self.bn_shortcut: nn.Module | None = None
        if shape.projects:
            self.shortcut = conv(shape.shortcut())
            self.bn_shortcut = norm(shape.out_channels, shape.half_out)

    def forward(self, x: Tensor, bits: int) -> Tensor:
        return self.finish(self.main(x, bits), x, bits)

    def main(self, x: Tensor, bits: int) -> Tensor:
        """Everything up to the addition of the shortcut."""
        hidden = F.relu(self.bn1(self.conv1(x, bits), bits), inplace=True)
        result: Tensor = self.bn2(self.conv2(hidden, bits), bits)
        return result

    def finish(self, main: Tensor, x: Tensor, bits: int) -> Tensor:
        """The rest of the block, given the result of ``main`` and the block's input."""
        identity = x
        if self.shortcut is not None and self.bn_shortcut is not None:
            identity = self.bn_shortcut(self.shortcut(x, bits), bits)
        return F.relu(main + _fit(identity, main.shape[1]), inplace=True)


def _fit(x: Tensor, channels: int) -> Tensor:
    missing = channels - x.shape[1]
    if missing == 0:
        return x
    return x[:, :channels] if missing < 0 else F.pad(x, (0, 0, 0, 0, 0, missing))


class ResNetBody(Body):
    """Stages of :class:`BasicBlock`; every stage but the first halves height and width."""

    def __init__(self, shapes: list[BlockShape], conv: ConvFactory, norm: NormFactory) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(BasicBlock(shape, conv, norm) for shape in shapes)


class PreActivationBlock(nn.Module):
    """``conv2(relu(bn2(conv1(relu(bn1(x)))))) + shortcut``; the sum is never rectified or clipped.

    The projection reads the normalised input, stays in full precision and has no normalisation of
    its own, so that it needs no switching (Any-Precision DNNs, Yu et al., AAAI 2021).
    """

    def __init__(self, shape: BlockShape, conv: ConvFactory, norm: NormFactory) -> None:
        super().__init__()
        self.bn1 = norm(shape.in_channels, shape.half_in)
        self.conv1 = conv(shape.conv1())
        self.bn2 = norm(shape.out_channels, shape.half_hidden)
        self.conv2 = conv(shape.conv2())
        self.shortcut: nn.Conv2d | None = None
        if shape.projects:
            self.shortcut = nn.Conv2d(
                shape.in_channels, shape.out_channels, 1, shape.stride, bias=False
            )

    def forward(self, x: Tensor, bits: int) -> Tensor:
        active = F.relu(self.bn1(x, bits))
        identity = x
        if self.shortcut is not None:
            weight = self.shortcut.weight.to(x.dtype)
            identity = F.conv2d(active, weight, None, self.shortcut.stride)
        hidden = F.relu(self.bn2(self.conv1(active, bits), bits))
        result: Tensor = self.conv2(hidden, bits) + identity
        return result


class PreActivationBody(Body):
    """Stages of :class:`PreActivationBlock`, then a last normalisation and ReLU."""

    def __init__(self, shapes: list[BlockShape], norm: NormFactory, conv: ConvFactory) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PreActivationBlock(shape, conv, norm) for shape in shapes)
        self.bn = norm(shapes[-1].out_channels, shapes[-1].half_out)

    def forward(self, x: Tensor, bits: int) -> Tensor:
        return F.relu(self.bn(super().forward(x, bits), bits))
