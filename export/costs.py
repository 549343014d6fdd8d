"""What a network costs: multiplications, bit operations and bytes, by the published rules."""

from export.arithmetic import output_size
from export.integer import HALF, Convolution, IntegerNetwork, Layer, Pool, Step
from train.costs import LevelCost

_Size = tuple[int, int]

_WEIGHT_BITS = 2


def level_cost(network: IntegerNetwork, bits: int) -> LevelCost:
    """The cost of one level. Raises IntegerNetworkError if the network has none of these bits."""
    level = network.level(bits)
    fixed = network.head.weight.size
    sizes: dict[int, _Size] = {}
    for index in sorted({network.stem_index(branch) for branch in level.branches}):
        stem = network.stems[index]
        rows, columns = _after(network.input_size, stem.weight.shape[1], stem.stride, stem.pad)
        fixed += stem.weight.size * rows * columns
        sizes[index] = _pooled((rows, columns), stem.pool)
    body = 0
    for branch, steps in zip(level.branches, level.bodies, strict=True):
        size = sizes[network.stem_index(branch)]
        for step in steps:
            macs, size = _step_cost(step, size)
            body += macs
    return LevelCost(bits, _WEIGHT_BITS, body, fixed)


def _step_cost(step: Step, size: _Size) -> tuple[int, _Size]:
    """Multiply-accumulates, and height and width of what comes out."""
    if isinstance(step, Layer):
        macs, after = _conv_cost(step.conv, size)
        return macs, _pooled(after, step.pool)
    first, hidden = _conv_cost(step.conv1, size)
    second, after = _conv_cost(step.conv2, hidden)
    shortcut = 0 if step.shortcut is None else _conv_cost(step.shortcut.conv, size)[0]
    return first + second + shortcut, after


def _conv_cost(conv: Convolution, size: _Size) -> tuple[int, _Size]:
    rows, columns = _after(size, conv.codes.shape[1], conv.stride, conv.pad)
    return conv.codes.size * rows * columns, (rows, columns)


def _pooled(size: _Size, pool: Pool | None) -> _Size:
    return size if pool is None else _after(size, pool.kernel, pool.stride, pool.pad)


def _after(size: _Size, kernel: int, stride: int, pad: int) -> _Size:
    height, width = size
    return output_size(height, kernel, stride, pad), output_size(width, kernel, stride, pad)


def storage_bytes(network: IntegerNetwork) -> int:
    """Bytes of all parameters as the literature counts them.

    Two bits for each weight of each branch; stem and classifier in float32; one scale and bias in
    float32 for each channel of a batch normalisation, of which every level has its own; a range
    (two float32) for the weights of each convolution, and for its activations at each level.
    This rule reproduces the sizes in Zhong et al., "MBQuant", Pattern Recognition 158 (2025):
    0.34 MB for ResNet-20 on CIFAR-10 with 2, 4, 6 and 8 bits. The weights of a half branch are among
    those of the branch and do not count again.
    """
    weights: dict[tuple[int, str], int] = {}
    for level in network.levels.values():
        for branch, name, conv in level.convolutions():
            key = branch, name.removeprefix(HALF)
            weights[key] = max(weights.get(key, 0), conv.codes.size)
    body = -(-sum(weights.values()) * _WEIGHT_BITS // 8)
    full = 4 * (network.head.weight.size + network.head.bias.size)
    norms = 0
    for stem in network.stems:
        full += 4 * stem.weight.size
        norms += 8 * stem.scale.size
    ranges = 8 * len(weights)
    for level in network.levels.values():
        for _, _, conv in level.convolutions():
            norms += 8 * conv.scale.size
            ranges += 8
    return body + full + norms + ranges
