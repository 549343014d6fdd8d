"""Bodies of networks: everything between the shared stem and the shared classifier.

A body takes its convolution as an argument and knows nothing of branches, bits or quantisers'
insides, so every training method runs on every network.
"""

from __future__ import annotations

from train.networks.resnet import NETWORKS, BasicBlock, BodySpec, ResNetBody

__all__ = ["NETWORKS", "BasicBlock", "BodySpec", "ResNetBody"]
