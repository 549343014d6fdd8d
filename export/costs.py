"""What a network costs: multiplications, bit operations and bytes, by the published rules."""

from collections.abc import Iterator
from dataclasses import dataclass

from export.arithmetic import output_size
from export.integer import Block, Convolution, IntegerNetwork

_FULL_PRECISION_BOPS = 32 * 32
_WEIGHT_BITS = 2


@dataclass(frozen=True)
class LevelCost:
    """Multiply-accumulates of one image at one level.

    body_macs: of the 2-bit convolutions of all branches that the level runs.
    fixed_macs: of the stem and the classifier, which are not quantised.
    """

    bits: int
    body_macs: int
    fixed_macs: int

    @property
    def macs(self) -> int:
        """What a machine with 8-bit multipliers executes."""
        return self.body_macs + self.fixed_macs

    @property
    def bops(self) -> int:
        """Bit operations: multiply-accumulates times the bits of both operands, 32 where full."""
        return self.body_macs * _WEIGHT_BITS * self.bits + self.fixed_macs * _FULL_PRECISION_BOPS


def level_cost(network: IntegerNetwork, bits: int) -> LevelCost:
    """The cost of one level. Raises IntegerNetworkError if the network has none of these bits."""
    stem = network.stem
    height, width = (
        output_size(size, kernel, stem.stride, stem.pad)
        for size, kernel in zip(network.input_size, stem.weight.shape[1:3], strict=True)
    )
    body = 0
    for blocks in network.level(bits).bodies:
        size = (height, width)
        for block in blocks:
            for conv, (rows, columns) in _with_output_size(block, size):
                body += conv.codes.size * rows * columns
                # The last to come out of a block is conv2 or a shortcut of the same size.
                after = rows, columns
            size = after
    fixed = stem.weight.size * height * width + network.head.weight.size
    return LevelCost(bits, body, fixed)


def _with_output_size(
    block: Block, size: tuple[int, int]
) -> Iterator[tuple[Convolution, tuple[int, int]]]:
    def after(conv: Convolution, size: tuple[int, int]) -> tuple[int, int]:
        _, kh, kw, _ = conv.codes.shape
        return (
            output_size(size[0], kh, conv.stride, conv.pad),
            output_size(size[1], kw, conv.stride, conv.pad),
        )

    hidden = after(block.conv1, size)
    yield block.conv1, hidden
    if block.shortcut is not None:
        yield block.shortcut.conv, after(block.shortcut.conv, size)
    yield block.conv2, after(block.conv2, hidden)


def storage_bytes(network: IntegerNetwork) -> int:
    """Bytes of all parameters as the literature counts them.

    Two bits for each weight of each branch; stem and classifier in float32; one scale and bias in
    float32 for each channel of a batch normalisation, of which every level has its own; a range
    (two float32) for the weights of each convolution, and for its activations at each level.
    This rule reproduces the sizes in Zhong et al., "MBQuant", Pattern Recognition 158 (2025):
    0.34 MB for ResNet-20 on CIFAR-10 with 2, 4, 6 and 8 bits.
    """
    weights = {
        (branch, name): conv.codes.size
        for level in network.levels.values()
        for branch, name, conv in level.convolutions()
    }
    body = sum(weights.values()) * _WEIGHT_BITS // 8
    full = 4 * (network.stem.weight.size + network.head.weight.size + network.head.bias.size)
    norms = 8 * network.stem.scale.size
    ranges = 8 * len(weights)
    for level in network.levels.values():
        for _, _, conv in level.convolutions():
            norms += 8 * conv.scale.size
            ranges += 8
    return body + full + norms + ranges
