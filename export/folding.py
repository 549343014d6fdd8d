"""From a trained multi-branch network to its integer form.

Everything after an accumulator is affine until the next rounding: batch normalisation, the
division by 3L that turns codes into weights and activations (L = 2^bits - 1), and the next
quantiser. It folds, in float64 and rounded once to float32, into one scale and one bias per output
channel. With the next quantiser's range (l, u) and z = s * acc + t:

    code = clip(rint((max(z, 0) - l) * L / (u - l)), 0, L) = clip(rint(a * acc + c), lowest, L)
    a = s * L / (u - l),  c = (t - l) * L / (u - l),  lowest = clip(rint(-l * L / (u - l)), 0, L)

Quantisers and switchable batch normalisation as in Zhong et al., "MBQuant", Pattern Recognition
158 (2025).
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from export.arithmetic import Codes, Floats
from export.integer import (
    Block,
    Convolution,
    Head,
    IntegerNetwork,
    IntegerNetworkError,
    IntegerStem,
    Level,
    Shortcut,
    StreamQuantizer,
    check,
)
from train.branches import MultiBranchNet, Stem, SwitchableBatchNorm
from train.networks import BasicBlock, ResNetBody
from train.quantizers import BranchConv

_Doubles = npt.NDArray[np.float64]
_Module = TypeVar("_Module", bound=nn.Module)


def fold(network: MultiBranchNet) -> IntegerNetwork:
    """The integer network of a trained one, in evaluation mode.

    Raises:
        IntegerNetworkError: a quantiser without a range, a variance that is not positive, values
            that are not finite, or accumulators that are not exact; names the layer.
    """
    # Codes do not depend on the bit-width; extracting them once makes the levels share the arrays.
    codes = {
        name: _weight_codes(module)
        for name, module in network.named_modules()
        if isinstance(module, BranchConv)
    }
    levels = {}
    for bits in sorted(network.bits):
        branches = tuple(network.selection[bits])
        bodies = tuple(_fold_branch(network, branch, bits, codes) for branch in branches)
        levels[bits] = Level(bits, branches, bodies)
    folded = IntegerNetwork(
        stem=fold_stem(network.stem),
        levels=levels,
        head=Head(_float32(network.classifier.weight), _float32(network.classifier.bias)),
        input_size=(int(network.input_size[0]), int(network.input_size[1])),
        labels=tuple(network.labels),
    )
    check(folded)
    return folded


def fold_stem(stem: Stem) -> IntegerStem:
    """The stem with the 16-bit weights that it was trained with, one scale per output channel.

    The bias removes the pixel mean.

    Raises:
        IntegerNetworkError: a batch-normalisation variance or pixel deviation that is not positive.
    """
    mean, deviation = _double(stem.pixel_mean), _double(stem.pixel_std)
    if not (deviation > 0).all():
        raise IntegerNetworkError("stem: the pixel standard deviation must be positive")
    if stem.bn is None or stem.pool is not None:
        raise IntegerNetworkError("stem: has no batch normalisation, or a pool; not foldable")
    gain, shift = _batch_norm_affine("stem", stem.bn)
    integer, unit = (_double(values) for values in stem.fixed_point())
    scale = gain * unit
    integer = integer.transpose(0, 2, 3, 1)
    bias = shift - scale * (integer * mean).sum(axis=(1, 2, 3))
    return IntegerStem(
        weight=np.ascontiguousarray(integer.astype(np.int16)),
        scale=scale.astype(np.float32),
        bias=bias.astype(np.float32),
        pad_value=stem.pad_value.detach().cpu().numpy().astype(np.uint8),
        stride=int(stem.stride),
        pad=int(stem.pad),
    )


def _fold_branch(
    network: MultiBranchNet, branch: int, bits: int, codes: dict[str, Codes]
) -> tuple[Block, ...]:
    body = _expect(ResNetBody, network.branches[branch - 1], f"branches.{branch - 1}")
    folded = []
    for index, block in enumerate(body.blocks):
        name = f"branches.{branch - 1}.blocks.{index}"
        folded.append(_fold_block(_expect(BasicBlock, block, name), bits, codes, name))
    return tuple(folded)


def _fold_block(block: BasicBlock, bits: int, codes: dict[str, Codes], name: str) -> Block:
    def affine(module: nn.Module | None, layer: str) -> tuple[_Doubles, _Doubles]:
        return _affine(
            _expect(SwitchableBatchNorm, module, f"{name}.{layer}"), bits, f"{name}.{layer}"
        )

    highest = 2**bits - 1
    first = _expect(BranchConv, block.conv1, f"{name}.conv1")
    second = _expect(BranchConv, block.conv2, f"{name}.conv2")
    lower, upper = _activation_range(second, bits, f"{name}.conv2")
    step = highest / (upper - lower)
    scale, bias = affine(block.bn1, "bn1")
    conv1 = _convolution(first, codes[f"{name}.conv1"], scale * step, (bias - lower) * step)
    conv2 = _convolution(second, codes[f"{name}.conv2"], *affine(block.bn2, "bn2"))
    shortcut = None
    if block.shortcut is not None:
        projection = _expect(BranchConv, block.shortcut, f"{name}.shortcut")
        shortcut = Shortcut(
            _stream_quantizer(projection, bits, f"{name}.shortcut"),
            _convolution(
                projection, codes[f"{name}.shortcut"], *affine(block.bn_shortcut, "bn_shortcut")
            ),
        )
    return Block(
        quantizer=_stream_quantizer(first, bits, f"{name}.conv1"),
        conv1=conv1,
        lowest=int(np.clip(np.rint(-lower * step), 0, highest)),
        highest=highest,
        conv2=conv2,
        shortcut=shortcut,
    )


def _expect(kind: type[_Module], module: nn.Module | None, name: str) -> _Module:
    """The module as what this kind of network has there."""
    if not isinstance(module, kind):
        raise IntegerNetworkError(
            f"{name}: is a {type(module).__name__}; only a {kind.__name__} can be folded here"
        )
    return module


def _convolution(conv: BranchConv, codes: Codes, scale: _Doubles, bias: _Doubles) -> Convolution:
    return Convolution(
        codes=codes,
        scale=scale.astype(np.float32),
        bias=bias.astype(np.float32),
        stride=int(conv.stride),
        pad=int(conv.padding),
    )


def _stream_quantizer(conv: BranchConv, bits: int, name: str) -> StreamQuantizer:
    highest = 2**bits - 1
    lower, upper = _activation_range(conv, bits, name)
    step = highest / (upper - lower)
    return StreamQuantizer(float(np.float32(step)), float(np.float32(-lower * step)), highest)


def _activation_range(conv: BranchConv, bits: int, name: str) -> tuple[float, float]:
    with torch.no_grad():
        lower, upper = (float(limit) for limit in conv.activation_range(bits))
    if not (np.isfinite(lower) and np.isfinite(upper) and lower < upper):
        raise IntegerNetworkError(
            f"{name} at {bits} bits: activation range {lower:g} .. {upper:g} is empty or not finite;"
            " was the network calibrated?"
        )
    return lower, upper


def _affine(bn: SwitchableBatchNorm, bits: int, name: str) -> tuple[_Doubles, _Doubles]:
    scale, bias = (_double(values) for values in bn.affine(bits))
    # A variance that is negative or not a number shows as such a scale.
    if not (np.isfinite(scale).all() and np.isfinite(bias).all()):
        raise IntegerNetworkError(f"{name} at {bits} bits: batch normalisation is not finite")
    return scale, bias


def _batch_norm_affine(name: str, bn: torch.nn.BatchNorm2d) -> tuple[_Doubles, _Doubles]:
    if bn.running_mean is None or bn.running_var is None:
        raise IntegerNetworkError(f"{name}: batch normalisation keeps no statistics")
    mean, variance = _double(bn.running_mean), _double(bn.running_var)
    if not (variance > 0).all():
        raise IntegerNetworkError(f"{name}: a batch-normalisation variance is not positive")
    scale = _double(bn.weight) / np.sqrt(variance + bn.eps)
    return scale, _double(bn.bias) - scale * mean


def _weight_codes(conv: BranchConv) -> Codes:
    codes = conv.weight_codes().detach().cpu().numpy().astype(np.uint8)
    shared: Codes = np.ascontiguousarray(codes.transpose(0, 2, 3, 1))
    shared.flags.writeable = False
    return shared


def _double(tensor: torch.Tensor) -> _Doubles:
    values: _Doubles = tensor.detach().cpu().numpy().astype(np.float64)
    return values


def _float32(tensor: torch.Tensor) -> Floats:
    values: Floats = tensor.detach().cpu().numpy().astype(np.float32)
    return values
