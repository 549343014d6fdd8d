"""The plan of one level: what the device's engine does, layer by layer, and where in memory.

A plan is made from the operators `mbq::*` of one traced level. Operators are fused as the engine runs
them: who writes the residual stream also writes the codes that the next convolutions make of it, so
that a convolution only ever reads codes. Every value gets its place in one arena; values share bytes
where their lifetimes do not meet.

Layout, little end first (`native_ops/engine/plan.h` reads it): the header, then values, layers, keys
(of constants that levels share), lists of value indices, and float32 scales and biases.
"""

import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MAGIC = b"MBQPLAN\0"
VERSION = 1
KEY_BYTES = 32
ALIGNMENT = 64

STREAM, CODES, IMAGE, LOGITS = range(4)
"""Kinds of values: float32 [H, W, C]; codes with a border; the input; the output."""

STEM, CONV, DEPTHWISE, FORK, POOL_CODES, HEAD = range(6)
"""Kinds of layers. A fork makes codes, and perhaps a stream of other channels, of a stream."""

MAX_CODE_OUTPUTS = 2

# What kernels may read behind a code image: kCodeSlackRows, kCodeSlackBytes in kernels/layers.h.
_SLACK_ROWS = 3
_SLACK_BYTES = 320

_HEADER = struct.Struct("<8s6IQ")
_VALUE = struct.Struct("<5IIQ")
_LAYER = struct.Struct("<24i")
_CODES = struct.Struct("<3i2f")

NONE = -1


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@dataclass
class Value:
    """One tensor. border: pixels of code 0 on every side of codes."""

    kind: int
    height: int
    width: int
    channels: int
    border: int = 0
    offset: int = 0

    @property
    def bytes(self) -> int:
        """Bytes in the arena, with what kernels may read behind codes; 0 for the method's own."""
        if self.kind == STREAM:
            size = self.height * self.width * self.channels * 4
        elif self.kind == CODES:
            row = (self.width + 2 * self.border) * _round_up(self.channels, 4)
            size = (self.height + 2 * self.border + _SLACK_ROWS) * row + _SLACK_BYTES
        else:
            return 0
        return _round_up(size, ALIGNMENT)


@dataclass
class CodeOutput:
    """Codes that a layer writes: clip(rint(x * scale + offset), lowest, highest) of its result x."""

    value: int
    scale: float
    offset: float
    lowest: int
    highest: int


@dataclass
class Layer:
    """One step of the engine. Fields that a kind does not use keep their defaults.

    branch: the branch that it belongs to, from 1; 0 for what branches share.
    highest: of the codes that a convolution reads.
    weight, second: indices of keys: weights, and a stem's padding value or a head's bias.
    affine: where in the floats the scales begin; the biases follow them.
    inputs: the streams of a head.
    """

    kind: int
    input: int
    branch: int = 0
    residual: int = NONE
    stream: int = NONE
    kernel: tuple[int, int] = (0, 0)
    stride: int = 1
    pad: int = 0
    highest: int = 255
    relu: bool = False
    direct: bool = False
    mean: bool = True
    weight: int = NONE
    second: int = NONE
    affine: int = NONE
    pool: tuple[int, int, int] = (0, 0, 0)
    outputs: int = 0
    codes: list[CodeOutput] = field(default_factory=list)
    inputs: tuple[int, ...] = ()

    def reads(self) -> list[int]:
        """Indices of the values that it reads."""
        return [v for v in (self.input, self.residual, *self.inputs) if v != NONE]

    def writes(self) -> list[int]:
        """Indices of the values that it writes."""
        return [v for v in (self.stream, *(codes.value for codes in self.codes)) if v != NONE]


@dataclass
class Plan:
    """Values, layers in execution order, keys of shared constants, and private floats."""

    values: list[Value] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    floats: list[npt.NDArray[np.float32]] = field(default_factory=list)
    arena_bytes: int = 0

    def place(self) -> None:
        """Give every value its offset in the arena: largest first, each at the lowest free place.

        Values whose lifetimes (from the layer that writes them to the last one that reads them)
        overlap get disjoint bytes. A stream that is the sum of another one, which nobody reads
        afterwards, takes its bytes: kernels read each pixel of it once, before they write it.
        """
        first, last = {}, {}
        for index, layer in enumerate(self.layers):
            for value in layer.writes():
                first[value] = last[value] = index
            for value in layer.reads():
                last[value] = index
        home = {value: value for value in first}
        for index, layer in enumerate(self.layers):
            if NONE not in (layer.residual, layer.stream) and last[layer.residual] == index:
                home[layer.stream] = home[layer.residual]
        for value, where in home.items():
            last[where] = max(last[where], last[value])
        placed: list[int] = []
        order = sorted(set(home.values()), key=lambda v: (-self.values[v].bytes, first[v]))
        for value in order:
            size, offset = self.values[value].bytes, 0
            if not size:
                continue
            neighbours = sorted(
                (self.values[other].offset, self.values[other].bytes)
                for other in placed
                if first[other] <= last[value] and first[value] <= last[other]
            )
            for begin, taken in neighbours:
                if offset + size <= begin:
                    break
                offset = max(offset, begin + taken)
            self.values[value].offset = offset
            placed.append(value)
            self.arena_bytes = max(self.arena_bytes, offset + size)
        for value, where in home.items():
            self.values[value].offset = self.values[where].offset

    def encode(self) -> bytes:
        """The bytes that the engine reads."""
        lists: list[int] = []
        layers = []
        for layer in self.layers:
            layers.append(self._encode_layer(layer, len(lists)))
            lists += layer.inputs
        values = [
            _VALUE.pack(v.kind, v.height, v.width, v.channels, v.border, 0, v.offset)
            for v in self.values
        ]
        floats = np.concatenate([np.zeros(0, np.float32), *self.floats]).astype("<f4")
        header = _HEADER.pack(
            MAGIC, VERSION, len(values), len(layers), len(self.keys), len(lists), len(floats),
            self.arena_bytes,
        )  # fmt: skip
        keys = [key.encode().ljust(KEY_BYTES, b"\0") for key in self.keys]
        return b"".join(
            [
                header,
                *values,
                *layers,
                *keys,
                struct.pack(f"<{len(lists)}i", *lists),
                floats.tobytes(),
            ]
        )

    @staticmethod
    def _encode_layer(layer: Layer, first_input: int) -> bytes:
        flags = layer.relu | layer.direct << 1 | layer.mean << 2
        fixed = _LAYER.pack(
            layer.kind, layer.branch, layer.input, layer.residual, layer.stream,
            *layer.kernel, layer.stride, layer.pad, layer.outputs, layer.highest, flags,
            layer.weight, layer.second, layer.affine, *layer.pool,
            first_input, len(layer.inputs), len(layer.codes), 0, 0, 0,
        )  # fmt: skip
        codes = [_CODES.pack(c.value, c.lowest, c.highest, c.scale, c.offset) for c in layer.codes]
        missing = MAX_CODE_OUTPUTS - len(codes)
        return fixed + b"".join(codes) + missing * _CODES.pack(NONE, 0, 0, 0.0, 0.0)
