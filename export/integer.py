"""The integer network and its executor, the oracle for everything that runs the exported file.

A level runs one or more branches over the output of a shared stem and joins them in a shared
head. What a level owns are scales and biases; the weight codes of a branch are one array, shared by
every level that selects the branch. The arithmetic of each step is in `arithmetic`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export import arithmetic
from export.arithmetic import Codes, Floats

_INT32_MAX = 2**31 - 1


class IntegerNetworkError(ValueError):
    """A network that cannot be executed in exact integer arithmetic; says which part and why."""


@dataclass(frozen=True)
class IntegerStem:
    """Convolution of pixels with 16-bit weights, batch normalisation and ReLU.

    Pixel normalisation is inside `weight` and `bias`, so that the input is the image itself.
    weight: int16 [O, kh, kw, 3]; scale, bias: float32 [O]; pad_value: uint8 [3].
    """

    weight: npt.NDArray[np.int16]
    scale: Floats
    bias: Floats
    pad_value: npt.NDArray[np.uint8]
    stride: int
    pad: int


@dataclass(frozen=True)
class StreamQuantizer:
    """From the float32 residual stream to codes 0 .. highest: clip(rint(x * scale + offset)).

    scale and offset are float32 values.
    """

    scale: float
    offset: float
    highest: int


@dataclass(frozen=True)
class Convolution:
    """2-bit convolution followed by one multiplication and one addition per output channel.

    codes: uint8 [O, kh, kw, I], 0..3; scale, bias: float32 [O].
    """

    codes: Codes
    scale: Floats
    bias: Floats
    stride: int
    pad: int


@dataclass(frozen=True)
class Shortcut:
    """Projection of a block's input, quantised by its own quantiser."""

    quantizer: StreamQuantizer
    conv: Convolution


@dataclass(frozen=True)
class Block:
    """Residual block of two convolutions.

    conv1 writes the codes that conv2 reads: its scale and bias contain batch normalisation and
    conv2's quantiser, and ReLU is the lower clip at `lowest`. conv2 adds the shortcut (or the
    block's input where that is None) and applies ReLU.
    """

    quantizer: StreamQuantizer
    conv1: Convolution
    lowest: int
    highest: int
    conv2: Convolution
    shortcut: Shortcut | None

    def convolutions(self) -> Iterator[tuple[str, Convolution]]:
        """The block's 2-bit convolutions with their names."""
        yield "conv1", self.conv1
        yield "conv2", self.conv2
        if self.shortcut is not None:
            yield "shortcut", self.shortcut.conv


@dataclass(frozen=True)
class Level:
    """One bit-width: for each selected branch (numbered from 1) its blocks at this bit-width."""

    bits: int
    branches: tuple[int, ...]
    bodies: tuple[tuple[Block, ...], ...]

    def convolutions(self) -> Iterator[tuple[int, str, Convolution]]:
        """(branch, name within the branch, convolution) in execution order."""
        for branch, blocks in zip(self.branches, self.bodies, strict=True):
            for index, block in enumerate(blocks):
                for name, conv in block.convolutions():
                    yield branch, f"block{index + 1}.{name}", conv


@dataclass(frozen=True)
class Head:
    """Linear classifier; weight: float32 [classes, C], bias: float32 [classes]."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class IntegerNetwork:
    """Everything a device executes. `levels` is keyed by bits, ascending."""

    stem: IntegerStem
    levels: dict[int, Level]
    head: Head
    input_size: tuple[int, int]
    labels: tuple[str, ...]

    def level(self, bits: int) -> Level:
        """The level of a bit-width. Raises IntegerNetworkError if the network has none."""
        if bits not in self.levels:
            raise IntegerNetworkError(
                f"no level of {bits} bits; this network has {', '.join(map(str, self.levels))}"
            )
        return self.levels[bits]


@dataclass(frozen=True)
class Trace:
    """Every intermediate result of one run, by name, in execution order."""

    codes: dict[str, Codes]
    streams: dict[str, Floats]
    logits: Floats


def run(network: IntegerNetwork, bits: int, images: npt.NDArray[np.uint8]) -> Floats:
    """Logits of a batch at one level.

    Args:
        images: uint8 [N, H, W, 3], RGB, of the network's input size.

    Returns:
        float32 [N, classes].

    Raises:
        IntegerNetworkError: no such level, or images of another type or size.
    """
    return trace(network, bits, images).logits


def trace(network: IntegerNetwork, bits: int, images: npt.NDArray[np.uint8]) -> Trace:
    """Like `run`, and keeps every code tensor and every state of the residual stream."""
    level = network.level(bits)
    expected = (*network.input_size, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
        raise IntegerNetworkError(
            f"images must be uint8 [N, {', '.join(map(str, expected))}],"
            f" not {images.dtype} {list(images.shape)}"
        )
    codes: dict[str, Codes] = {}
    streams: dict[str, Floats] = {}
    s = network.stem
    streams["stem"] = arithmetic.stem(
        images, s.weight, s.scale, s.bias, s.pad_value, s.stride, s.pad
    )
    outputs = []
    for branch, blocks in zip(level.branches, level.bodies, strict=True):
        stream = streams["stem"]
        for index, block in enumerate(blocks):
            name = f"branch{branch}.block{index + 1}"
            stream = _run_block(block, stream, name, codes, streams)
        outputs.append(stream)
    return Trace(codes, streams, arithmetic.head(outputs, network.head.weight, network.head.bias))


def _run_block(
    block: Block,
    stream: Floats,
    name: str,
    codes: dict[str, Codes],
    streams: dict[str, Floats],
) -> Floats:
    codes[f"{name}.conv1"] = _quantize(block.quantizer, stream)
    conv = block.conv1
    codes[f"{name}.conv2"] = arithmetic.conv2d_codes(
        codes[f"{name}.conv1"],
        conv.codes,
        conv.scale,
        conv.bias,
        conv.stride,
        conv.pad,
        block.lowest,
        block.highest,
    )
    residual = stream
    if block.shortcut is not None:
        codes[f"{name}.shortcut"] = _quantize(block.shortcut.quantizer, stream)
        residual = _stream(block.shortcut.conv, codes[f"{name}.shortcut"], None, relu=False)
        streams[f"{name}.shortcut"] = residual
    streams[name] = _stream(block.conv2, codes[f"{name}.conv2"], residual, relu=True)
    return streams[name]


def _quantize(quantizer: StreamQuantizer, stream: Floats) -> Codes:
    return arithmetic.quantize(stream, quantizer.scale, quantizer.offset, 0, quantizer.highest)


def _stream(conv: Convolution, codes: Codes, residual: Floats | None, relu: bool) -> Floats:
    return arithmetic.conv2d_stream(
        codes, conv.codes, conv.scale, conv.bias, residual, conv.stride, conv.pad, relu
    )


def check(network: IntegerNetwork) -> None:
    """Refuse a network whose exported file would not compute what was trained.

    Checked: finite scales and biases, weight codes of two bits, the same codes at every level that
    runs a branch, and accumulators that fit int32 for every image (and are exact in float32 once
    they have left the stem).

    Raises:
        IntegerNetworkError: the first violation, with the level, branch and layer.
    """
    if not network.levels:
        raise IntegerNetworkError("the network has no level")
    _check_finite("stem", network.stem.scale, network.stem.bias)
    weight = network.stem.weight.astype(np.int64)
    largest = int(np.abs(weight).sum(axis=(1, 2, 3)).max()) * 255
    if largest > _INT32_MAX:
        raise IntegerNetworkError(
            f"stem: accumulators can reach {largest}, beyond int32; use smaller weights"
        )
    _check_finite("head", network.head.weight, network.head.bias)
    shared: dict[tuple[int, str], tuple[int, Codes]] = {}
    for bits, level in network.levels.items():
        for branch, name, conv in level.convolutions():
            where = f"{bits} bits, branch {branch}, {name}"
            _check_finite(where, conv.scale, conv.bias)
            _check_convolution(where, conv, 2**bits - 1)
            first_bits, first = shared.setdefault((branch, name), (bits, conv.codes))
            if not np.array_equal(first, conv.codes):
                raise IntegerNetworkError(
                    f"{where}: weight codes differ from those at {first_bits} bits; the weights"
                    " of a branch have one quantiser for all bit-widths"
                )
        for branch, blocks in zip(level.branches, level.bodies, strict=True):
            for index, block in enumerate(blocks):
                where = f"{bits} bits, branch {branch}, block{index + 1}"
                _check_quantizers(where, block, 2**bits - 1)


def _check_finite(where: str, *arrays: Floats) -> None:
    for array in arrays:
        if not np.isfinite(array).all():
            raise IntegerNetworkError(f"{where}: a scale, weight or bias is not a finite number")


def _check_convolution(where: str, conv: Convolution, highest: int) -> None:
    if conv.codes.dtype != np.uint8 or conv.codes.ndim != 4 or conv.codes.max(initial=0) > 3:
        raise IntegerNetworkError(f"{where}: weight codes must be uint8 [O, kh, kw, I] in 0..3")
    outputs = conv.codes.shape[0]
    if conv.scale.shape != (outputs,) or conv.bias.shape != (outputs,):
        raise IntegerNetworkError(f"{where}: needs one scale and one bias for each output channel")
    largest = 3 * highest * (conv.codes.size // outputs)
    # Below 2^24 the conversion of an accumulator to float32 does not round either.
    if largest >= 2**24:
        raise IntegerNetworkError(
            f"{where}: accumulators can reach {largest}, not exact in float32 from 2^24"
        )


def _check_quantizers(where: str, block: Block, highest: int) -> None:
    quantizers = [block.quantizer]
    if block.shortcut is not None:
        quantizers.append(block.shortcut.quantizer)
    for quantizer in quantizers:
        if not (np.isfinite(quantizer.offset) and np.isfinite(quantizer.scale)):
            raise IntegerNetworkError(f"{where}: the quantiser's scale or offset is not finite")
        if quantizer.scale <= 0 or quantizer.highest != highest:
            raise IntegerNetworkError(
                f"{where}: a quantiser needs a positive scale and highest code {highest}"
            )
    if not 0 <= block.lowest <= block.highest == highest:
        raise IntegerNetworkError(
            f"{where}: requantisation to {block.lowest}..{block.highest} instead of up to {highest}"
        )
