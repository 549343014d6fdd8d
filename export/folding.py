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

from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from export.arithmetic import Codes, Floats
from export.checks import check
from export.integer import (
    Block,
    Convolution,
    Head,
    IntegerNetwork,
    IntegerNetworkError,
    IntegerStem,
    Layer,
    Level,
    Pool,
    Shortcut,
    Step,
    StreamQuantizer,
)
from train.branches import MultiBranchNet, Stem, SwitchableBatchNorm
from train.networks import BasicBlock, Body, ConvBlock
from train.quantizers import BranchConv, QuantizedConv

_Doubles = npt.NDArray[np.float64]
_Module = TypeVar("_Module", bound=nn.Module)
_Codes = dict[tuple[str, bool], Codes]
"""Weight codes by a convolution's name, and whether only its half runs."""


def fold(network: MultiBranchNet) -> IntegerNetwork:
    """The integer network of a trained one, in evaluation mode.

    Raises:
        IntegerNetworkError: a network without 2-bit branches or with an exchange of channels between
            them, a quantiser without a range, a variance that is not positive, values that are not
            finite, or accumulators that are not exact; names the layer.
    """
    _require_branches(network)
    # Codes do not depend on the bit-width; extracting them once makes the levels share the arrays.
    codes: _Codes = {}
    for name, module in network.named_modules():
        if isinstance(module, BranchConv):
            codes[name, False] = _weight_codes(module)
            codes[name, True] = _half_codes(module, codes[name, False])
    levels = {}
    for bits in sorted(network.bits):
        branches = tuple(network.selection[bits])
        halves = tuple(network.is_half(branch, bits) for branch in branches)
        bodies = tuple(
            _fold_branch(network, branch, bits, codes, half)
            for branch, half in zip(branches, halves, strict=True)
        )
        levels[bits] = Level(bits, branches, bodies, half=halves[-1])
    folded = IntegerNetwork(
        stems=_fold_stems(network),
        levels=levels,
        head=Head(
            _float32(network.classifier.weight),
            _float32(network.classifier.bias),
            mean=network.topology.join == "mean",
        ),
        input_size=(int(network.input_size[0]), int(network.input_size[1])),
        labels=tuple(network.labels),
    )
    check(folded)
    return folded


def _require_branches(network: MultiBranchNet) -> None:
    for conv in network.convolutions():
        if not isinstance(conv, BranchConv):
            raise IntegerNetworkError(
                f"this network has {type(conv).__name__} in place of 2-bit branches, and branches"
                " are what the device runs; export a network of the method mbquant or dedicated"
            )
    if network.topology.shuffle:
        raise IntegerNetworkError(
            "the branches of this network exchange channels, and a device runs them on their own;"
            " train with method.shuffle = false"
        )


def _fold_stems(network: MultiBranchNet) -> tuple[IntegerStem, ...]:
    stem = fold_stem(network.stem)
    if not network.topology.branch_stem:
        return (stem,)
    size = network.stem_channels
    parts = (slice(first, first + size) for first in range(0, len(stem.weight), size))
    return tuple(
        replace(stem, weight=stem.weight[part], scale=stem.scale[part], bias=stem.bias[part])
        for part in parts
    )


def fold_stem(stem: Stem) -> IntegerStem:
    """The stem with the 16-bit weights that it was trained with, one scale per output channel.

    The bias removes the pixel mean.

    Raises:
        IntegerNetworkError: a batch-normalisation variance or pixel deviation that is not positive.
    """
    mean, deviation = _double(stem.pixel_mean), _double(stem.pixel_std)
    if not (deviation > 0).all():
        raise IntegerNetworkError("stem: the pixel standard deviation must be positive")
    if stem.bn is None:
        raise IntegerNetworkError("stem: has no batch normalisation")
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
        pool=None if stem.pool is None else Pool(*stem.pool),
    )


def _fold_branch(
    network: MultiBranchNet, branch: int, bits: int, codes: _Codes, half: bool
) -> tuple[Step, ...]:
    name = f"branches.{branch - 1}"
    body = _expect(Body, network.branches[branch - 1], name)
    blocks = [(f"{name}.blocks.{index}", block) for index, block in enumerate(body.blocks)]
    steps: list[Step] = []
    for index, (where, block) in enumerate(blocks):
        if isinstance(block, BasicBlock):
            steps.append(_fold_block(block, where, bits, codes, half))
        elif isinstance(block, ConvBlock):
            # Between two layers there is no stream: the first writes the codes that the next reads.
            first = not steps or isinstance(steps[-1], Block)
            following = blocks[index + 1] if index + 1 < len(blocks) else None
            steps.append(_fold_layer(block, where, following, first, bits, codes, half))
        else:
            raise IntegerNetworkError(
                f"{where}: is a {type(block).__name__}; no step of a branch that can be folded"
            )
    return tuple(steps)


def _fold_layer(
    layer: ConvBlock,
    name: str,
    following: tuple[str, nn.Module] | None,
    first: bool,
    bits: int,
    codes: _Codes,
    half: bool,
) -> Layer:
    conv = _expect(BranchConv, layer.conv, f"{name}.conv")
    scale, bias = _norm_affine(layer.bn, bits, f"{name}.bn")
    limits = None
    if following is not None and isinstance(following[1], ConvBlock):
        reader = _expect(BranchConv, following[1].conv, f"{following[0]}.conv")
        scale, bias, limits = _requantize(reader, bits, f"{following[0]}.conv", scale, bias)
    return Layer(
        quantizer=_stream_quantizer(conv, bits, f"{name}.conv") if first else None,
        conv=_convolution(conv, codes[f"{name}.conv", half], scale, bias),
        limits=limits,
        pool=Pool(2, 2, 0) if layer.pool else None,
    )


def _requantize(
    reader: BranchConv, bits: int, name: str, scale: _Doubles, bias: _Doubles
) -> tuple[_Doubles, _Doubles, tuple[int, int]]:
    """Scale, bias and limits that give the codes of `reader` for max(scale * acc + bias, 0)."""
    highest = 2**bits - 1
    lower, upper = _activation_range(reader, bits, name)
    step = highest / (upper - lower)
    lowest = int(np.clip(np.rint(-lower * step), 0, highest))
    return scale * step, (bias - lower) * step, (lowest, highest)


def _fold_block(block: BasicBlock, name: str, bits: int, codes: _Codes, half: bool) -> Block:
    first = _expect(BranchConv, block.conv1, f"{name}.conv1")
    second = _expect(BranchConv, block.conv2, f"{name}.conv2")
    scale, bias, (lowest, highest) = _requantize(
        second, bits, f"{name}.conv2", *_norm_affine(block.bn1, bits, f"{name}.bn1")
    )
    shortcut = None
    if block.shortcut is not None:
        projection = _expect(BranchConv, block.shortcut, f"{name}.shortcut")
        affine = _norm_affine(block.bn_shortcut, bits, f"{name}.bn_shortcut")
        shortcut = Shortcut(
            _stream_quantizer(projection, bits, f"{name}.shortcut"),
            _convolution(projection, codes[f"{name}.shortcut", half], *affine),
        )
    return Block(
        quantizer=_stream_quantizer(first, bits, f"{name}.conv1"),
        conv1=_convolution(first, codes[f"{name}.conv1", half], scale, bias),
        lowest=lowest,
        highest=highest,
        conv2=_convolution(
            second,
            codes[f"{name}.conv2", half],
            *_norm_affine(block.bn2, bits, f"{name}.bn2"),
        ),
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
        depthwise=conv.shape.depthwise,
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


def _norm_affine(module: nn.Module | None, bits: int, name: str) -> tuple[_Doubles, _Doubles]:
    norm = _expect(SwitchableBatchNorm, module, name)
    scale, bias = (_double(values) for values in norm.affine(bits))
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
    return _shared(codes.transpose(0, 2, 3, 1))


def _half_codes(conv: QuantizedConv, codes: Codes) -> Codes:
    """The filters and channels of a half branch, out of [O, kh, kw, I]."""
    shape = conv.shape
    return _shared(codes[: shape.half_out, :, :, : 1 if shape.depthwise else shape.half_in])


def _shared(codes: Codes) -> Codes:
    contiguous: Codes = np.ascontiguousarray(codes)
    contiguous.flags.writeable = False
    return contiguous


def _double(tensor: torch.Tensor) -> _Doubles:
    values: _Doubles = tensor.detach().cpu().numpy().astype(np.float64)
    return values


def _float32(tensor: torch.Tensor) -> Floats:
    values: Floats = tensor.detach().cpu().numpy().astype(np.float32)
    return values
