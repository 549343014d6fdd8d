"""The ordinary full-precision network of one body: what quantised ones are compared with."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from train.networks.body import ConvShape, NetworkSpec


class _Conv(nn.Conv2d):
    def __init__(self, shape: ConvShape) -> None:
        super().__init__(
            shape.in_channels,
            shape.out_channels,
            shape.kernel_size,
            shape.stride,
            shape.kernel_size // 2,
            groups=shape.groups,
            bias=False,
        )

    def forward(self, x: Tensor, bits: int = 0) -> Tensor:
        return super().forward(x)


class _Norm(nn.BatchNorm2d):
    def __init__(self, channels: int, half: int = 0) -> None:
        super().__init__(channels)

    def forward(self, x: Tensor, bits: int = 0) -> Tensor:
        return super().forward(x)


class PlainNet(nn.Module):
    """Stem, one body and classifier of PyTorch's own layers: ``[N, 3, H, W]`` -> ``[N, classes]``."""

    def __init__(self, spec: NetworkSpec, classes: int) -> None:
        super().__init__()
        stem = spec.stem
        self.stem = _Conv(
            ConvShape(3, stem.channels, stem.kernel_size, stem.stride, 3, stem.channels)
        )
        self.norm = _Norm(stem.channels)
        self.pool = nn.Identity() if stem.pool is None else nn.MaxPool2d(*stem.pool)
        self.body = spec.body(_Conv, _Norm, published_half=False, preactivation=False)
        self.classifier = nn.Linear(spec.width, classes)

    def forward(self, image: Tensor) -> Tensor:
        features = self.pool(F.relu(self.norm(self.stem(image))))
        maps = self.body(features, 0)
        # Backends take the mean as a layer of theirs where it keeps its dimensions.
        logits: Tensor = self.classifier(maps.mean((2, 3), keepdim=True).flatten(1))
        return logits
