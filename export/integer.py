"""The integer network and its executor, the oracle for everything that runs the exported file.

A level runs one or more branches over the output of a shared stem (or of a stem for each branch) and
joins them in a shared head. A branch is a sequence of steps: residual blocks, or layers that hand
codes to one another. What a level owns are scales and biases; the weight codes of a branch are one
array, shared by every level that selects the branch. At odd bit-widths the last branch runs only its
first filters, over the first channels of what they read. The arithmetic of each step is in
`arithmetic`, what a network has to fulfil in `checks`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from export import arithmetic
from export.arithmetic import Codes, Floats

_Number = TypeVar("_Number", np.uint8, np.float32)

HALF = "half."
"""Starts the names of what belongs to the half of a branch."""


class IntegerNetworkError(ValueError):
    """A network that cannot be executed in exact integer arithmetic; says which part and why."""


@dataclass(frozen=True)
class Pool:
    """Maximum over square windows; what lies outside the image never wins."""

    kernel: int
    stride: int
    pad: int


@dataclass(frozen=True)
class IntegerStem:
    """Convolution of pixels with 16-bit weights, batch normalisation and ReLU, perhaps a max pool.

    Pixel normalisation is inside `weight` and `bias`, so that the input is the image itself.
    weight: int16 [O, kh, kw, 3]; scale, bias: float32 [O]; pad_value: uint8 [3].
    """

    weight: npt.NDArray[np.int16]
    scale: Floats
    bias: Floats
    pad_value: npt.NDArray[np.uint8]
    stride: int
    pad: int
    pool: Pool | None = None


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
    depthwise: each channel has its own filter, and codes are [C, kh, kw, 1].
    """

    codes: Codes
    scale: Floats
    bias: Floats
    stride: int
    pad: int
    depthwise: bool = False

    @property
    def inputs(self) -> int:
        """Channels that it reads."""
        return int(self.codes.shape[0 if self.depthwise else 3])

    @property
    def outputs(self) -> int:
        """Channels that it writes."""
        return int(self.codes.shape[0])


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
    block's input where that is None) and applies ReLU. Within a half branch, convolutions read the
    first channels of a wider stream, and the block's input is cut, or continued with zeros, to as
    many channels as conv2 writes.
    """

    quantizer: StreamQuantizer
    conv1: Convolution
    lowest: int
    highest: int
    conv2: Convolution
    shortcut: Shortcut | None

    kind = "block"

    def convolutions(self) -> Iterator[tuple[str, Convolution]]:
        """The 2-bit convolutions with their names."""
        yield "conv1", self.conv1
        yield "conv2", self.conv2
        if self.shortcut is not None:
            yield "shortcut", self.shortcut.conv


@dataclass(frozen=True)
class Layer:
    """Convolution, batch normalisation, ReLU and perhaps a max pool.

    quantizer: of the stream that it reads; None where it reads the codes of the layer before.
    limits: lowest and highest of the codes that it writes for the next layer, whose quantiser scale
        and bias contain, ReLU being the lower clip; None where it writes the stream.
    pool: of what it writes. The quantiser never decreases, so the largest code is the code of the
        largest value.
    """

    quantizer: StreamQuantizer | None
    conv: Convolution
    limits: tuple[int, int] | None
    pool: Pool | None = None

    kind = "layer"

    def convolutions(self) -> Iterator[tuple[str, Convolution]]:
        """The 2-bit convolution with its name."""
        yield "conv", self.conv


Step = Block | Layer
"""What a branch is a sequence of: stream to stream, or codes to codes between layers."""


@dataclass(frozen=True)
class Level:
    """One bit-width: for each selected branch (numbered from 1) its steps at this bit-width.

    half: only the half of the last branch runs.
    """

    bits: int
    branches: tuple[int, ...]
    bodies: tuple[tuple[Step, ...], ...]
    half: bool = False

    def steps(self) -> Iterator[tuple[int, str, Step]]:
        """(branch, name within the branch, step) in execution order.

        The filters of a half branch are other arrays than the branch's: its steps have their own names.
        """
        last = len(self.bodies) - 1
        for position, (branch, steps) in enumerate(zip(self.branches, self.bodies, strict=True)):
            prefix = HALF if self.half and position == last else ""
            for index, step in enumerate(steps):
                yield branch, f"{prefix}{step.kind}{index + 1}", step

    def convolutions(self) -> Iterator[tuple[int, str, Convolution]]:
        """(branch, name within the branch, convolution) in execution order."""
        for branch, name, step in self.steps():
            for inner, conv in step.convolutions():
                yield branch, f"{name}.{inner}", conv


@dataclass(frozen=True)
class Head:
    """Linear classifier; weight: float32 [classes, C], bias: float32 [classes].

    mean: the branches are joined by their mean; else by their sum.
    """

    weight: Floats
    bias: Floats
    mean: bool = True


@dataclass(frozen=True)
class IntegerNetwork:
    """Everything a device executes.

    stems: one for all branches, or one for each.
    levels: keyed by bits, ascending.
    """

    stems: tuple[IntegerStem, ...]
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

    def stem_index(self, branch: int) -> int:
        """Position in `stems` of the one that a branch (numbered from 1) reads."""
        return branch - 1 if len(self.stems) > 1 else 0


@dataclass(frozen=True)
class Trace:
    """Every intermediate result of one run, by name, in execution order.

    codes: what each convolution reads, and what a pool makes of codes; streams: every state of the
    stream; logits.
    """

    codes: dict[str, Codes] = field(default_factory=dict)
    streams: dict[str, Floats] = field(default_factory=dict)
    logits: Floats = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))


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
    kept = Trace()
    features = {}
    for index in sorted({network.stem_index(branch) for branch in level.branches}):
        name = "stem" if len(network.stems) == 1 else f"stem{index + 1}"
        features[index] = kept.streams[name] = run_stem(network.stems[index], images)
    outputs: dict[int, Codes | Floats] = {}
    for branch, name, step in level.steps():
        x = outputs.get(branch, features[network.stem_index(branch)])
        outputs[branch] = run_step(step, x, f"branch{branch}.{name}", kept)
    streams = [outputs[branch].astype(np.float32, copy=False) for branch in level.branches]
    head = network.head
    logits = arithmetic.head(streams, head.weight, head.bias, head.mean)
    return Trace(kept.codes, kept.streams, logits)


def run_stem(stem: IntegerStem, images: npt.NDArray[np.uint8]) -> Floats:
    """Features of a batch uint8 [N, H, W, 3]: float32 [N, H', W', C]."""
    s = stem
    features = arithmetic.stem(images, s.weight, s.scale, s.bias, s.pad_value, s.stride, s.pad)
    return _pool(s.pool, features)


def run_step(step: Step, x: Codes | Floats, name: str, kept: Trace) -> Codes | Floats:
    """What a step makes of the stream, or of the codes of the layer before, [N, H, W, C]."""
    if isinstance(step, Block):
        return _run_block(step, x, name, kept)
    return _run_layer(step, x, name, kept)


def _run_block(block: Block, stream: Codes | Floats, name: str, kept: Trace) -> Floats:
    if stream.dtype != np.float32:
        raise IntegerNetworkError(f"{name}: reads the stream, and codes come")
    whole = stream.astype(np.float32, copy=False)
    read = _fit(whole, block.conv1.inputs)
    kept.codes[f"{name}.conv1"] = _quantize(block.quantizer, read)
    kept.codes[f"{name}.conv2"] = _to_codes(
        block.conv1, kept.codes[f"{name}.conv1"], block.lowest, block.highest
    )
    if block.shortcut is None:
        residual = _fit(whole, block.conv2.outputs)
    else:
        kept.codes[f"{name}.shortcut"] = _quantize(block.shortcut.quantizer, read)
        residual = _to_stream(block.shortcut.conv, kept.codes[f"{name}.shortcut"], None, relu=False)
        kept.streams[f"{name}.shortcut"] = residual
    kept.streams[name] = _to_stream(block.conv2, kept.codes[f"{name}.conv2"], residual, relu=True)
    return kept.streams[name]


def _run_layer(layer: Layer, x: Codes | Floats, name: str, kept: Trace) -> Codes | Floats:
    if layer.quantizer is not None:
        x = _quantize(layer.quantizer, x.astype(np.float32, copy=False))
    codes = kept.codes[f"{name}.conv"] = x.astype(np.uint8, copy=False)
    if layer.limits is not None:
        return _pool(layer.pool, _to_codes(layer.conv, codes, *layer.limits))
    kept.streams[name] = _pool(layer.pool, _to_stream(layer.conv, codes, None, relu=True))
    return kept.streams[name]


def _pool(pool: Pool | None, x: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    return x if pool is None else arithmetic.max_pool(x, pool.kernel, pool.stride, pool.pad)


def _fit(stream: Floats, channels: int) -> Floats:
    return stream if stream.shape[3] == channels else arithmetic.fit_channels(stream, channels)


def _quantize(quantizer: StreamQuantizer, stream: Floats) -> Codes:
    return arithmetic.quantize(stream, quantizer.scale, quantizer.offset, 0, quantizer.highest)


def _to_codes(conv: Convolution, codes: Codes, lowest: int, highest: int) -> Codes:
    operation = arithmetic.depthwise_codes if conv.depthwise else arithmetic.conv2d_codes
    return operation(
        codes, conv.codes, conv.scale, conv.bias, conv.stride, conv.pad, lowest, highest
    )


def _to_stream(conv: Convolution, codes: Codes, residual: Floats | None, relu: bool) -> Floats:
    return arithmetic.conv2d_stream(
        codes, conv.codes, conv.scale, conv.bias, residual, conv.stride, conv.pad, relu
    )
