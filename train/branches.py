"""The multi-branch network of MBQuant (Zhong et al., Pattern Recognition 2025).

One shared full-precision stem, G independent copies of the body with 2-bit weights, a mean over the
branches that a level uses, one shared classifier. b-bit inference runs b/2 branches on b-bit
activations.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.networks import NETWORKS, ResNetBody
from train.quantizers import FULL_PRECISION, WEIGHT_LEVELS, BranchConv, largest_code

AMORTISED: dict[int, tuple[int, ...]] = {2: (1,), 4: (2, 3), 6: (2, 3, 4), 8: (1, 2, 3, 4)}
"""Branches (numbered from 1) of each level, so that no branch has to serve every activation
bit-width (MBQuant, amortised branch selection)."""

INT16_MAX = 2**15 - 1
_EPS = 1e-5
_MOMENTUM = 0.1


class SwitchableBatchNorm(nn.Module):
    """One batch normalisation per bit-width (and one for full precision).

    Its input is an integer accumulator, ``3 L`` times the real value, so eps grows by ``(3 L)^2`` to
    leave the normalised output what it would be in real units; statistics are in integer units.
    """

    def __init__(self, channels: int, bits: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels
        self.norms = nn.ModuleDict({"full": nn.BatchNorm2d(channels, _EPS, _MOMENTUM)})
        for b in bits:
            eps = _EPS * (WEIGHT_LEVELS * largest_code(b)) ** 2
            self.norms[str(b)] = nn.BatchNorm2d(channels, eps, _MOMENTUM)

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """Normalise ``[N, C, H, W]`` with the statistics of ``bits``."""
        normalised: Tensor = self.select(bits)(x)
        return normalised

    def select(self, bits: int) -> nn.BatchNorm2d:
        norm = self.norms["full" if bits == FULL_PRECISION else str(bits)]
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
        """Copy gamma and beta of the full-precision norm to every bit-width."""
        full = self.select(FULL_PRECISION)
        for name, norm in self.norms.items():
            if name != "full" and isinstance(norm, nn.BatchNorm2d):
                norm.weight.copy_(full.weight)
                norm.bias.copy_(full.bias)


class Stem(nn.Module):
    """Pixels to features in full precision: pad, normalise, 3x3 convolution, BN, ReLU.

    The border is padded with the *rounded mean pixel* before normalisation, which is zero up to half
    a grey level after it, so that the integer stem on the device can pad with the same bytes.
    Weights have 16 bits, as on the device: rounding them only at export would move features by 1e-5,
    enough to flip a few activation codes an image, which the quantised body amplifies.

    Args:
        channels: output channels.
        mean, std: per RGB channel, in pixel units 0..255.
        momentum: of the batch normalisation, whose statistics all levels share.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    pad_value: Tensor

    def __init__(
        self, channels: int, mean: tuple[float, ...], std: tuple[float, ...], momentum: float
    ) -> None:
        super().__init__()
        self.pad, self.stride = 1, 1
        self.conv = nn.Conv2d(3, channels, 3, self.stride, 0, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn = nn.BatchNorm2d(channels, _EPS, momentum)
        self.register_buffer("pixel_mean", torch.tensor(mean))
        self.register_buffer("pixel_std", torch.tensor(std))
        self.register_buffer("pad_value", torch.tensor(mean).round().to(torch.uint8))

    def forward(self, image: Tensor) -> Tensor:
        """Images ``[N, 3, H, W]``, uint8 or float in 0..255 -> features ``[N, C, H, W]``."""
        pixels, border = image.float(), self.pad_value.float()[:, None, None]
        # A border value per channel: shift it to zero, pad with zeros, shift it back (exact).
        padded = F.pad(pixels - border, [self.pad] * 4) + border
        centred = padded - self.pixel_mean[:, None, None]
        weight = self.conv.weight / self.pixel_std[:, None, None]
        integer, unit = self.fixed_point()
        rounded = integer * unit[:, None, None, None]
        # Straight-through: the gradient is that of the weight before rounding.
        weight = weight + (rounded - weight).detach()
        features: Tensor = F.relu(self.bn(F.conv2d(centred, weight, None, self.stride)))
        return features

    @torch.no_grad()
    def fixed_point(self) -> tuple[Tensor, Tensor]:
        """The weights that the device stores, for pixels that are not normalised.

        Returns:
            integers in -32767..32767 ``[C, 3, k, k]`` (as floats), and the value of one ``[C]``.
        """
        weight = self.conv.weight / self.pixel_std[:, None, None]
        unit = weight.abs().amax((1, 2, 3)).clamp_min(1e-20) / INT16_MAX
        return torch.round(weight / unit[:, None, None, None]), unit


class MultiBranchNet(nn.Module):
    """Shared stem, G bodies, shared classifier.

    Args:
        network: name in :data:`train.networks.NETWORKS`.
        labels: class names, in the order of the logits.
        input_size: (height, width) of the images.
        bits: levels to build, a subset of :data:`AMORTISED`.
        mean, std: of the pixels, per channel, 0..255.
    """

    def __init__(
        self,
        network: str,
        labels: tuple[str, ...],
        input_size: tuple[int, int],
        bits: tuple[int, ...],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        spec = NETWORKS[network]
        self.network_name = network
        self.labels = labels
        self.input_size = input_size
        self.bits = tuple(sorted(bits))
        self.selection = {b: AMORTISED[b] for b in self.bits}
        self.num_classes = len(labels)
        # The stem runs once a step for all bits; this momentum equals one update per bit.
        self.stem = Stem(spec.stem_channels, mean, std, 1.0 - (1.0 - _MOMENTUM) ** len(self.bits))
        bodies = []
        for branch in range(1, max(max(s) for s in self.selection.values()) + 1):
            used = tuple(b for b in self.bits if branch in self.selection[b])
            conv = partial(BranchConv, bits=used)
            bodies.append(ResNetBody(spec, conv, partial(SwitchableBatchNorm, bits=used)))
        self.branches = nn.ModuleList(bodies)
        self.classifier = nn.Linear(spec.widths[-1], self.num_classes)

    def forward(self, image: Tensor, bits: int) -> Tensor:
        """Images ``[N, 3, H, W]`` (0..255) at one level -> logits ``[N, classes]``."""
        return self.classify(self.stem(image), bits)

    def classify(self, features: Tensor, bits: int) -> Tensor:
        """Stem features ``[N, C, H, W]`` -> float32 logits ``[N, classes]`` at level ``bits``."""
        pooled = [self.pool(features, branch, bits) for branch in self.selection[bits]]
        return self.join(pooled)

    def pool(self, features: Tensor, branch: int, bits: int) -> Tensor:
        """Average-pooled float32 output ``[N, width]`` of one branch (numbered from 1)."""
        body: Tensor = self.branches[branch - 1](features, bits)
        return body.float().mean(dim=(2, 3))

    def join(self, pooled: list[Tensor]) -> Tensor:
        """Mean over branches, then the classifier."""
        logits: Tensor = self.classifier(torch.stack(pooled).mean(0))
        return logits

    def classify_full_precision(self, features: Tensor) -> dict[int, Tensor]:
        """Logits of every level's subset of branches with quantisers off.

        Each branch runs once, since without bits its output is the same in every subset.
        """
        pooled = [
            self.pool(features, branch, FULL_PRECISION)
            for branch in range(1, len(self.branches) + 1)
        ]
        return {b: self.join([pooled[j - 1] for j in s]) for b, s in self.selection.items()}

    def convolutions(self) -> Iterator[BranchConv]:
        """All quantised convolutions, branch by branch in order of execution."""
        return (m for m in self.branches.modules() if isinstance(m, BranchConv))

    def norms(self) -> Iterator[SwitchableBatchNorm]:
        return (m for m in self.branches.modules() if isinstance(m, SwitchableBatchNorm))

    def range_parameters(self) -> list[nn.Parameter]:
        """Clipping ranges of all quantisers."""
        return [p for conv in self.convolutions() for p in conv.range_parameters()]

    def model_parameters(self) -> list[nn.Parameter]:
        """Everything that is not a clipping range."""
        ranges = {id(p) for p in self.range_parameters()}
        return [p for p in self.parameters() if id(p) not in ranges]
