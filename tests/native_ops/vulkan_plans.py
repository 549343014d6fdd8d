"""Plans of single layers with generated shapes, run on a GPU and by the oracle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from export import arithmetic, packing, plan
from export.plan import NONE, CodeOutput, Layer, Plan, Value
from native_ops import _native

Array = npt.NDArray[Any]


@dataclass
class Built:
    """A plan with what every value of it has to be."""

    plan: Plan
    constants: dict[str, bytes] = field(default_factory=dict)
    expected: dict[int, Array] = field(default_factory=dict)
    image: Array = field(default_factory=lambda: np.zeros(0, np.uint8))


class Maker:
    """Adds layers to a plan and computes them with the oracle at the same time."""

    def __init__(self, seed: int, height: int, width: int) -> None:
        self.random = np.random.default_rng(seed)
        self.built = Built(Plan())
        self.built.image = self.random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        self.image = self._value(plan.IMAGE, self.built.image)
        self.lowest: int | None = None  # of all code outputs; None for 0 or 1

    def _value(self, kind: int, array: Array, border: int = 0) -> int:
        height, width, channels = array.shape if array.ndim == 3 else (1, 1, array.size)
        self.built.plan.values.append(Value(kind, height, width, channels, border))
        index = len(self.built.plan.values) - 1
        self.built.expected[index] = array
        return index

    def _key(self, contents: Array) -> int:
        key = f"constant{len(self.built.plan.keys)}"
        self.built.plan.keys.append(key)
        self.built.constants[key] = contents.tobytes()
        return len(self.built.plan.keys) - 1

    def _affine(self, outputs: int, spread: float, centre: float) -> tuple[int, Array, Array]:
        """Scales that spread accumulators around the centre; some make ties, some are negative."""
        scale = self.random.uniform(0.5, 1.5, outputs) / spread
        scale[::3] = 2.0 ** np.round(np.log2(scale[::3]))
        bias = centre + self.random.uniform(-1, 1, outputs) * (self.random.random(outputs) < 0.7)
        scale = (scale * np.where(self.random.random(outputs) < 0.2, -1, 1)).astype(np.float32)
        bias = bias.astype(np.float32)
        begin = sum(array.size for array in self.built.plan.floats)
        self.built.plan.floats += [scale, bias]
        return begin, scale, bias

    def array(self, value: int) -> Array:
        return self.built.expected[value]

    def _codes(self, layer: Layer, stream: Array, highest: int, border: int) -> int:
        """A code output of a stream, whose scale covers its values and beyond."""
        low, high = float(stream.min()), float(stream.max())
        step = np.float32(highest * self.random.uniform(0.8, 1.3) / max(high - low, 1e-3))
        offset = np.float32(-low * step + self.random.uniform(-1, 1))
        lowest = int(self.random.integers(0, 2)) if self.lowest is None else self.lowest
        codes = arithmetic.quantize(stream[None], float(step), float(offset), lowest, highest)[0]
        value = self._value(plan.CODES, codes, border)
        layer.codes.append(CodeOutput(value, float(step), float(offset), lowest, highest))
        return value

    def _write(
        self, layer: Layer, stream: Array, keep: bool, highest: tuple[int, ...], border: int
    ) -> list[int]:
        """The stream (if kept) and the codes that a layer makes of its result."""
        layer.outputs = stream.shape[2]
        values = []
        if keep:
            layer.stream = self._value(plan.STREAM, stream)
            values.append(layer.stream)
        values += [self._codes(layer, stream, most, border) for most in highest]
        self.built.plan.layers.append(layer)
        return values

    def stem(
        self,
        outputs: int,
        kernel: int,
        stride: int,
        pad: int,
        highest: tuple[int, ...],
        border: int,
    ) -> list[int]:
        """The stream and codes of a first convolution."""
        weight = self.random.integers(-32768, 32768, (outputs, kernel, kernel, 3)).astype(np.int16)
        outside = self.random.integers(0, 256, 3).astype(np.uint8)
        begin, scale, bias = self._affine(outputs, 32767 * 255 * kernel, 0.5)
        layer = Layer(
            plan.STEM, self.image, kernel=(kernel, kernel), stride=stride, pad=pad, relu=True,
            weight=self._key(weight), second=self._key(outside), affine=begin,
        )  # fmt: skip
        stream = arithmetic.stem(
            self.array(self.image)[None], weight, scale, bias, outside, stride, pad
        )[0]
        return self._write(layer, stream, True, highest, border)

    def pattern(self, on: Array, channels: int, highest: int) -> list[int]:
        """The stream and codes of a first convolution: in every channel the highest code where a pixel
        is on (bool [height, width]), 0 elsewhere. Changes the image."""
        self.built.image[:] = np.where(on[:, :, None], 255, 0)
        weight = np.zeros((channels, 1, 1, 3), np.int16)
        weight[..., 0] = 32767
        begin = sum(array.size for array in self.built.plan.floats)
        scale = np.full(channels, highest / (255 * 32767), np.float32)
        bias = np.zeros(channels, np.float32)
        self.built.plan.floats += [scale, bias]
        layer = Layer(
            plan.STEM, self.image, kernel=(1, 1), stride=1, pad=0, relu=True,
            weight=self._key(weight), second=self._key(np.zeros(3, np.uint8)), affine=begin,
        )  # fmt: skip
        layer.outputs = channels
        codes = np.repeat(np.where(on, highest, 0).astype(np.uint8)[:, :, None], channels, axis=2)
        stream = arithmetic.stem(
            self.array(self.image)[None], weight, scale, bias, np.zeros(3, np.uint8), 1, 0
        )[0]
        assert (np.rint(stream) == codes).all()
        layer.stream = self._value(plan.STREAM, stream)
        value = self._value(plan.CODES, codes, 1)
        layer.codes.append(CodeOutput(value, 1.0, 0.0, 0, highest))
        self.built.plan.layers.append(layer)
        return [layer.stream, value]

    def convolution(
        self,
        source: int,
        outputs: int,
        kernel: tuple[int, int],
        stride: int,
        pad: int,
        highest: int,
        form: str,
        residual: int = NONE,
        depthwise: bool = False,
        weight_codes: Array | int | None = None,
    ) -> list[int]:
        """A dense or depthwise convolution; form: direct, stream, codes, both or all.

        weight_codes: 0..3, as [outputs, height, width, inputs] or fewer dimensions; random if not given.
        """
        codes = self.array(source)[None]
        inputs = 1 if depthwise else codes.shape[3]
        weight = self.random.integers(0, 4, (outputs, *kernel, inputs), dtype=np.uint8)
        if weight_codes is not None:
            weight[:] = weight_codes
        accumulate = arithmetic.accumulate_depthwise if depthwise else arithmetic.accumulate
        acc = accumulate(codes, weight, stride, pad).astype(np.float32)
        spread = max(float(np.abs(acc).max()), 1.0)
        kind = packing.KIND_DEPTHWISE if depthwise else packing.KIND_DENSE
        layer = Layer(
            plan.DEPTHWISE if depthwise else plan.CONV, source, branch=1, kernel=kernel,
            stride=stride, pad=pad, highest=highest, weight=self._key(packing.pack(weight, kind)),
        )  # fmt: skip
        if form == "direct":
            layer.direct = True
            layer.affine, scale, bias = self._affine(outputs, spread / highest * 1.5, highest / 2)
            lowest = int(self.random.integers(0, 2))
            run = arithmetic.depthwise_codes if depthwise else arithmetic.conv2d_codes
            result = run(codes, weight, scale, bias, stride, pad, lowest, highest)[0]
            value = self._value(plan.CODES, result)
            layer.outputs = outputs
            layer.codes.append(CodeOutput(value, 1.0, 0.0, lowest, highest))
            self.built.plan.layers.append(layer)
            return [value]
        layer.affine, scale, bias = self._affine(outputs, spread, 0.0)
        layer.residual, layer.relu = residual, bool(self.random.integers(0, 2))
        added = None if residual == NONE else self.array(residual)[None]
        if depthwise:
            result = (acc * scale + bias)[0]
            result = result if added is None else result + added[0]
            result = np.maximum(result, np.float32(0)) if layer.relu else result
        else:
            result = arithmetic.conv2d_stream(
                codes, weight, scale, bias, added, stride, pad, layer.relu
            )[0]
        outputs_of = {"stream": (True, ()), "codes": (False, (15,)), "both": (True, (255,)),
                      "all": (True, (3, 63))}  # fmt: skip
        keep, forms = outputs_of[form]
        return self._write(layer, result, keep, forms, 0)

    def fork(
        self, source: int, pool: tuple[int, int, int], channels: int, keep: bool, codes: int
    ) -> list[int]:
        """Codes and perhaps a stream of other channels, with or without a max pool."""
        stream = self.array(source)[None]
        if pool[0]:
            stream = arithmetic.max_pool(stream, *pool)
        fitted = arithmetic.fit_channels(stream, channels)[0]
        layer = Layer(plan.FORK, source, pool=pool)
        return self._write(layer, fitted, keep, (15, 255)[:codes], 0)

    def pool(self, source: int, pool: tuple[int, int, int]) -> list[int]:
        """The largest codes of windows."""
        codes = arithmetic.max_pool(self.array(source)[None], *pool)[0]
        value = self._value(plan.CODES, codes)
        layer = Layer(plan.POOL_CODES, source, pool=pool, outputs=codes.shape[2])
        layer.codes.append(CodeOutput(value, 1.0, 0.0, 0, 255))
        self.built.plan.layers.append(layer)
        return [value]

    def head(self, streams: list[int], classes: int, mean: bool) -> int:
        """The classifier, which ends a plan."""
        channels = self.array(streams[0]).shape[2]
        weight = self.random.uniform(-1, 1, (classes, channels)).astype(np.float32)
        bias = self.random.uniform(-1, 1, classes).astype(np.float32)
        logits = arithmetic.head([self.array(s)[None] for s in streams], weight, bias, mean)[0]
        value = self._value(plan.LOGITS, logits)
        self.built.plan.layers.append(
            Layer(plan.HEAD, NONE, stream=value, inputs=tuple(streams), weight=self._key(weight),
                  second=self._key(bias), mean=mean, outputs=classes)
        )  # fmt: skip
        return value


def level_of(built: Built) -> _native.VulkanPlan:
    """The plan on the first device."""
    built.plan.place()
    return _native.VulkanPlan(built.plan.encode(), built.constants)


def differences(built: Built, values: list[int], logits: int) -> list[str]:
    """What the GPU computes otherwise than the oracle, bit for bit; empty if nothing."""
    level = level_of(built)
    wrong = []
    for run in range(2):  # the second finds what the first left in the arena
        found = np.frombuffer(level.run(built.image.tobytes()), np.float32)
        pairs = [(logits, found)] + [(value, _read(level, built, value)) for value in values]
        for value, array in pairs:
            expected = built.expected[value]
            if array.tobytes() != expected.tobytes():
                where = np.argwhere(array != expected)
                wrong.append(f"run {run}, value {value}: {len(where)} of {expected.size} differ")
    return wrong


def _read(level: _native.VulkanPlan, built: Built, value: int) -> Array:
    """A value as the device holds it; codes must be 0 behind a pixel's channels."""
    expected = built.expected[value]
    height, width, channels = expected.shape
    if expected.dtype == np.float32:
        return np.frombuffer(level.read(value), np.float32).reshape(expected.shape)
    padded = np.frombuffer(level.read(value), np.uint8).reshape(height, width, -1)
    assert not padded[:, :, channels:].any()
    return np.ascontiguousarray(padded[:, :, :channels])
