"""The multi-branch network of MBQuant (Zhong et al., Pattern Recognition 2025).

One shared full-precision stem, G independent copies of the body with 2-bit weights, a mean over the
branches that a level uses, one shared classifier. b-bit inference runs b/2 branches on b-bit
activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.networks import NETWORKS, Body, BodySpec, ConvShape, NetworkSpec, StemShape
from train.quantizers import (
    FULL_PRECISION,
    FULL_PRECISION_HALF,
    BranchConv,
    QuantizedConv,
    largest_code,
)

AMORTISED: dict[int, tuple[int, ...]] = {
    2: (1,), 3: (1, 2), 4: (2, 3), 5: (2, 3, 4), 6: (2, 3, 4), 7: (1, 2, 3, 4), 8: (1, 2, 3, 4),
}  # fmt: skip
"""Branches (numbered from 1) of each level, so that no branch has to serve every activation
bit-width (MBQuant, amortised branch selection). At odd bit-widths the last one is halved."""

SERIAL: dict[int, tuple[int, ...]] = {
    b: tuple(range(1, (b + 1) // 2 + 1)) for b in range(2, 9)
}  # fmt: skip
"""The first branches, as many as the bit-width needs: the ablation, and what two branches get."""


def select_branches(bits: tuple[int, ...], scheme: str) -> dict[int, tuple[int, ...]]:
    """Branches of each level, for ``scheme`` "amortised" or "serial".

    Up to 4 bits there are two branches and nothing to amortise: both schemes are the serial one.
    """
    table = AMORTISED if scheme == "amortised" and max(bits) > 4 else SERIAL
    return {b: table[b] for b in bits}


_EPS = 1e-5
_MOMENTUM = 0.1


class SwitchableBatchNorm(nn.Module):
    """One batch normalisation per bit-width (and one for full precision).

    Its input may be an integer accumulator, ``unit`` times the real value (3 L for 2-bit weights). So
    eps grows by ``unit^2`` to leave the normalised output what it would be in real units; statistics
    are in integer units.

    Args:
        channels: of the full branch.
        units: of each bit-width at which it is used.
        half: channels at ``half_bits``, where only the half branch runs.
    """

    def __init__(
        self,
        channels: int,
        units: dict[int, float],
        half: int = 0,
        half_bits: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.channels = channels
        self.bits = tuple(units)
        self.norms = nn.ModuleDict({"full": nn.BatchNorm2d(channels, _EPS, _MOMENTUM)})
        if half_bits:
            self.norms["full-half"] = nn.BatchNorm2d(half, _EPS, _MOMENTUM)
        for b, unit in units.items():
            width = half if b in half_bits else channels
            self.norms[str(b)] = nn.BatchNorm2d(width, _EPS * unit**2, _MOMENTUM)

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """Normalise ``[N, C, H, W]`` with the statistics of ``bits``."""
        normalised: Tensor = self.select(bits)(x)
        return normalised

    def select(self, bits: int) -> nn.BatchNorm2d:
        name = {FULL_PRECISION: "full", FULL_PRECISION_HALF: "full-half"}.get(bits, str(bits))
        norm = self.norms[name]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    @torch.no_grad()
    def affine(self, bits: int) -> tuple[Tensor, Tensor]:
        """Float64 ``(scale, bias)``, each ``[C]``, with ``z = accumulator * scale + bias``."""
        norm = self.select(bits)
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        return scale, norm.bias.double() - norm.running_mean.double() * scale

    @torch.no_grad()
    def start_from_full_precision(self) -> None:
        """Copy gamma and beta of the full-precision norms to every bit-width."""
        full = self.select(FULL_PRECISION)
        half = self.norms["full-half"] if "full-half" in self.norms else full
        for name, norm in self.norms.items():
            if name.isdigit() and isinstance(norm, nn.BatchNorm2d):
                source = full if norm.num_features == full.num_features else half
                assert isinstance(source, nn.BatchNorm2d)
                norm.weight.copy_(source.weight)
                norm.bias.copy_(source.bias)


class Stem(nn.Module):
    """Pixels to features in full precision: pad, normalise, convolution, BN, ReLU, perhaps a max pool.

    The border is padded with the *rounded mean pixel* before normalisation, which is zero up to half
    a grey level after it, so that the integer stem on the device can pad with the same bytes.
    Weights are rounded to 16 or 8 bits, as on the device: rounding them only at export would move
    features (by 1e-5 even with 16 bits), enough to flip activation codes, which the quantised body
    amplifies.

    Args:
        shape: channels, kernel, stride and pool of the network's stem.
        mean, std: per RGB channel, in pixel units 0..255.
        momentum: of the batch normalisation, whose statistics all levels share.
        copies: times the channels, one part for each branch.
        bare: convolution only, for bodies that normalise their input themselves.
        bits: of the weights: 8 or 16.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    pad_value: Tensor

    def __init__(
        self,
        shape: StemShape,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        momentum: float,
        copies: int = 1,
        bare: bool = False,
        bits: int = 16,
    ) -> None:
        super().__init__()
        self.largest = 2 ** (bits - 1) - 1
        self.pad, self.stride, self.pool = shape.kernel_size // 2, shape.stride, shape.pool
        channels = shape.channels * copies
        self.conv = nn.Conv2d(3, channels, shape.kernel_size, self.stride, 0, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn = None if bare else nn.BatchNorm2d(channels, _EPS, momentum)
        self.register_buffer("pixel_mean", torch.tensor(mean))
        self.register_buffer("pixel_std", torch.tensor(std))
        self.register_buffer("pad_value", torch.tensor(mean).round().to(torch.uint8))

    def forward(self, image: Tensor) -> Tensor:
        """Images ``[N, 3, H, W]``, uint8 or float in 0..255 -> features ``[N, C, H', W']``."""
        pixels, border = image.float(), self.pad_value.float()[:, None, None]
        # A border value per channel: shift it to zero, pad with zeros, shift it back (exact).
        padded = F.pad(pixels - border, [self.pad] * 4) + border
        centred = padded - self.pixel_mean[:, None, None]
        weight = self.conv.weight / self.pixel_std[:, None, None]
        integer, unit = self.fixed_point()
        rounded = integer * unit[:, None, None, None]
        # Straight-through: the gradient is that of the weight before rounding.
        weight = weight + (rounded - weight).detach()
        features = F.conv2d(centred, weight, None, self.stride)
        if self.bn is not None:
            features = F.relu(self.bn(features))
        if self.pool is not None:
            features = F.max_pool2d(features, *self.pool)
        return features

    @torch.no_grad()
    def fixed_point(self) -> tuple[Tensor, Tensor]:
        """The weights that the device stores, for pixels that are not normalised.

        Returns:
            integers ``[C, 3, k, k]`` (as floats) in -32767..32767, or -127..127 with 8 bits, and the
            value of one ``[C]``.
        """
        weight = self.conv.weight / self.pixel_std[:, None, None]
        unit = weight.abs().amax((1, 2, 3)).clamp_min(1e-20) / self.largest
        return torch.round(weight / unit[:, None, None, None]), unit


ConvMaker = Callable[[ConvShape, tuple[int, ...], tuple[int, ...]], QuantizedConv]
"""(shape, bit-widths, those of them at which only the half branch runs) -> convolution."""


@dataclass(frozen=True)
class Topology:
    """How a method arranges branches; the defaults are MBQuant's.

    Attributes:
        conv: makes the quantised convolutions.
        unit: what the output of such a convolution has to be divided by to be in real units, by bits.
        selection: branches of each level, numbered from 1.
        half: bit-widths at which the last selected branch is halved.
        join: "mean" or "sum" over branches.
        branch_stem: a stem for each branch instead of a shared one.
        shuffle: exchange channels between branches in every down-sampling block, as the published
            code does on ImageNet (from 4 bits).
        published_half: half-branch widths of the published code.
        preactivation: normalisation before convolutions, in residual networks.
    """

    conv: ConvMaker
    unit: Callable[[int], float]
    selection: dict[int, tuple[int, ...]]
    half: tuple[int, ...] = ()
    join: str = "mean"
    branch_stem: bool = False
    shuffle: bool = False
    published_half: bool = False
    preactivation: bool = False


def mbquant_topology(bits: tuple[int, ...]) -> Topology:
    """MBQuant as published: amortised selection, shared stem, joined by the mean."""
    selection = select_branches(bits, "amortised")
    return Topology(
        BranchConv, accumulator_unit(BranchConv), selection, tuple(b for b in bits if b % 2)
    )


def accumulator_unit(conv: type[QuantizedConv]) -> Callable[[int], float]:
    """What accumulators of integer weights and activation codes are multiples of."""
    return lambda bits: conv.weight_unit(bits) * largest_code(bits)


class MultiBranchNet(nn.Module):
    """Shared stem, G bodies, shared classifier.

    Methods with one set of weights for all levels are networks of one branch that every level selects.

    Args:
        network: name in :data:`train.networks.NETWORKS`.
        labels: class names, in the order of the logits.
        input_size: (height, width) of the images.
        bits: levels to build.
        mean, std: of the pixels, per channel, 0..255.
        topology: how the branches are arranged; MBQuant's if not given.
        stem_bits: of the stem's weights: 8 or 16.
    """

    def __init__(
        self,
        network: str,
        labels: tuple[str, ...],
        input_size: tuple[int, int],
        bits: tuple[int, ...],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        topology: Topology | None = None,
        stem_bits: int = 16,
    ) -> None:
        super().__init__()
        spec = NETWORKS[network]
        self.network_name = network
        self.labels = labels
        self.input_size = input_size
        self.bits = tuple(sorted(bits))
        self.topology = topology or mbquant_topology(self.bits)
        self.selection = {b: self.topology.selection[b] for b in self.bits}
        self.num_classes = len(labels)
        count = max(max(s) for s in self.selection.values())
        self.stem_channels = spec.stem.channels
        # The stem runs once a step for all bits; this momentum equals one update per bit.
        self.stem = Stem(
            spec.stem,
            mean,
            std,
            1.0 - (1.0 - _MOMENTUM) ** len(self.bits),
            copies=count if self.topology.branch_stem else 1,
            bare=self.topology.preactivation and isinstance(spec, BodySpec),
            bits=stem_bits,
        )
        self.branches = nn.ModuleList(self._body(spec, j) for j in range(1, count + 1))
        self.classifier = nn.Linear(spec.width, self.num_classes)

    def _body(self, spec: NetworkSpec, branch: int) -> Body:
        used = tuple(b for b in self.bits if branch in self.selection[b])
        halved = tuple(b for b in used if self.is_half(branch, b))
        units = {b: self.topology.unit(b) for b in used}

        def conv(shape: ConvShape) -> QuantizedConv:
            return self.topology.conv(shape, used, halved)

        def norm(channels: int, half: int) -> SwitchableBatchNorm:
            return SwitchableBatchNorm(channels, units, half, halved)

        return spec.body(
            conv,
            norm,
            published_half=self.topology.published_half,
            preactivation=self.topology.preactivation,
        )

    def is_half(self, branch: int, bits: int) -> bool:
        """Whether only half of the branch runs at this bit-width."""
        return bits in self.topology.half and branch == self.selection[bits][-1]

    def forward(self, image: Tensor, bits: int) -> Tensor:
        """Images ``[N, 3, H, W]`` (0..255) at one level -> logits ``[N, classes]``."""
        return self.classify(self.stem(image), bits)

    def classify(self, features: Tensor, bits: int) -> Tensor:
        """Stem features ``[N, C, H, W]`` -> float32 logits ``[N, classes]`` at level ``bits``."""
        if self.topology.shuffle and bits >= 4:
            return self.join(self._pool_side_by_side(features, bits))
        return self.join([self.pool(features, branch, bits) for branch in self.selection[bits]])

    def pool(self, features: Tensor, branch: int, bits: int) -> Tensor:
        """Average-pooled float32 output ``[N, width]`` of one branch (numbered from 1)."""
        body: Tensor = self.branches[branch - 1](self.branch_features(features, branch), bits)
        return body.float().mean(dim=(2, 3))

    def branch_features(self, features: Tensor, branch: int) -> Tensor:
        """What a branch sees of the stem's output: all, or its own part."""
        if not self.topology.branch_stem:
            return features
        return features.narrow(1, (branch - 1) * self.stem_channels, self.stem_channels)

    def _pool_side_by_side(self, features: Tensor, bits: int) -> list[Tensor]:
        """Branches in step, exchanging channels where a block reduces the size."""
        branches = self.selection[bits]
        streams = [self.branch_features(features, branch) for branch in branches]
        bodies = [self.branches[branch - 1] for branch in branches]
        for blocks in zip(*(body.blocks for body in bodies), strict=True):
            mains = [block.main(x, bits) for block, x in zip(blocks, streams, strict=True)]
            if blocks[0].mixes:
                mains = shuffle_channels(mains)
            streams = [
                block.finish(main, x, bits)
                for block, main, x in zip(blocks, mains, streams, strict=True)
            ]
        return [stream.float().mean(dim=(2, 3)) for stream in streams]

    def join(self, pooled: list[Tensor]) -> Tensor:
        """Mean (or sum) over branches, then the classifier."""
        joined = torch.stack(pooled)
        logits: Tensor = self.classifier(
            joined.sum(0) if self.topology.join == "sum" else joined.mean(0)
        )
        return logits

    def classify_full_precision(self, features: Tensor) -> dict[int, Tensor]:
        """Logits of every level's subset of branches with quantisers off.

        Each branch (and each half) runs once, since without bits its output is the same in every
        subset. Channels are not exchanged.
        """
        pooled: dict[tuple[int, bool], Tensor] = {}
        logits = {}
        for bits, branches in self.selection.items():
            for branch in branches:
                half = self.is_half(branch, bits)
                if (branch, half) not in pooled:
                    precision = FULL_PRECISION_HALF if half else FULL_PRECISION
                    pooled[branch, half] = self.pool(features, branch, precision)
            logits[bits] = self.join([pooled[j, self.is_half(j, bits)] for j in branches])
        return logits

    def convolutions(self) -> Iterator[QuantizedConv]:
        """All quantised convolutions, branch by branch in order of execution."""
        return (m for m in self.branches.modules() if isinstance(m, QuantizedConv))

    def norms(self) -> Iterator[SwitchableBatchNorm]:
        return (m for m in self.branches.modules() if isinstance(m, SwitchableBatchNorm))

    def quantised_norms(self) -> list[nn.BatchNorm2d]:
        """Every normalisation that a level uses: the stem's, and those of the bit-widths."""
        own = [norm.select(b) for norm in self.norms() for b in norm.bits]
        return own if self.stem.bn is None else [self.stem.bn, *own]

    def range_parameters(self) -> list[nn.Parameter]:
        """What the quantisers train: clipping ranges and gains."""
        return [p for conv in self.convolutions() for p in conv.range_parameters()]

    def model_parameters(self) -> list[nn.Parameter]:
        """Every other trainable parameter."""
        ranges = {id(p) for p in self.range_parameters()}
        return [p for p in self.parameters() if id(p) not in ranges and p.requires_grad]


def shuffle_channels(streams: list[Tensor]) -> list[Tensor]:
    """Deal the channels of all branches out in turn: ``(g, C/g) -> (C/g, g)`` of the concatenation."""
    count = len(streams)
    n, channels, height, width = streams[0].shape
    dealt = torch.stack(streams, 2).reshape(n, count * channels, height, width)
    return list(torch.split(dealt, channels, 1))
