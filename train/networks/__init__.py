"""Bodies of networks: everything between the shared stem and the shared classifier.

A body takes its convolution and its normalisation as arguments and knows nothing of branches, bits
or quantisers' insides, so every training method runs on every network.
"""

from __future__ import annotations

from train.networks.body import (
    Body,
    ConvFactory,
    ConvShape,
    NetworkSpec,
    NormFactory,
    StemShape,
)
from train.networks.plain import PlainNet
from train.networks.resnet import BasicBlock, BodySpec, PreActivationBody, ResNetBody
from train.networks.sequential import ConvBlock, MobileNetSpec, SequentialBody, VGGSpec

__all__ = [
    "NETWORKS",
    "BasicBlock",
    "Body",
    "BodySpec",
    "ConvBlock",
    "ConvFactory",
    "ConvShape",
    "MobileNetSpec",
    "NetworkSpec",
    "NormFactory",
    "PlainNet",
    "PreActivationBody",
    "ResNetBody",
    "SequentialBody",
    "StemShape",
    "VGGSpec",
]

NETWORKS: dict[str, NetworkSpec] = {
    # 11, 22, 43 of 16, 32, 64 channels cost 49 % of a branch's multiplications.
    "resnet8": BodySpec((16, 32, 64), (1, 1, 1), (11, 22, 43), (16, 24, 48)),
    "resnet20": BodySpec((16, 32, 64), (3, 3, 3), (11, 22, 43), (16, 24, 48)),
    "resnet18": BodySpec(
        (64, 128, 256, 512), (2, 2, 2, 2), (40, 76, 184, 396), None, 7, 2, (3, 2, 1)
    ),
    "resnet34": BodySpec(
        (64, 128, 256, 512), (3, 4, 6, 3), (39, 78, 188, 400), None, 7, 2, (3, 2, 1)
    ),
    "vgg11": VGGSpec(
        StemShape(64, pool=(2, 2, 0)),
        widths=(128, 256, 256, 512, 512, 512, 512),
        pools=(True, False, True, False, True, False, True),
        half=(107, 215, 215, 224, 224, 224, 512),
    ),
    "mobilenetv1": MobileNetSpec(
        StemShape(32, stride=2),
        widths=(64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024),
        strides=(1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1),
        half=(52, 40, 101, 148, 223, 373, 404, 236, 376, 419, 233, 892, 1024),
    ),
}
"""Half-branch widths of ResNet-18, ResNet-34, VGG11 and MobileNetV1 are those of the published code of
MBQuant; they cost 49 to 50 % of a branch."""
