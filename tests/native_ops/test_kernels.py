"""The reference operators against the oracle, bit for bit."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import arithmetic, packing
from native_ops import kernels

# height, width, inputs, outputs, kernel, stride, pad: what networks use, then what breaks tiles.
SHAPES = [
    (32, 32, 16, 16, 3, 1, 1),
    (16, 16, 32, 32, 3, 1, 1),
    (8, 8, 64, 64, 3, 1, 1),
    (32, 32, 16, 32, 3, 2, 1),
    (16, 16, 32, 64, 1, 2, 0),
    (7, 7, 64, 48, 3, 1, 1),
    (1, 1, 4, 16, 1, 1, 0),
    (1, 1, 4, 16, 3, 1, 1),
    (3, 5, 1, 1, 3, 1, 1),
    (5, 3, 3, 17, 3, 2, 1),
    (9, 13, 5, 31, 3, 1, 1),
    (11, 17, 7, 33, 3, 2, 1),
    (13, 7, 20, 40, 1, 1, 0),
    (6, 19, 6, 24, 1, 2, 0),
    (10, 10, 9, 8, 5, 1, 2),
    (12, 9, 4, 15, 5, 3, 0),
    (8, 15, 130, 18, 3, 1, 1),
]


def convolution(seed: int, shape: tuple[int, ...], highest: int) -> dict[str, Any]:
    """Random arguments whose results spread over the whole range of codes and beyond it."""
    height, width, inputs, outputs, side, stride, pad = shape
    random = np.random.default_rng(seed)
    spread = 2.2 * np.sqrt(side * side * inputs) * highest / 2
    return {
        "codes": random.integers(0, highest + 1, (1, height, width, inputs), dtype=np.uint8),
        "weight": random.integers(0, 4, (outputs, side, side, inputs), dtype=np.uint8),
        "scale": (random.normal(0, 1, outputs) * highest / spread).astype(np.float32),
        "bias": random.uniform(-highest / 2, 1.5 * highest, outputs).astype(np.float32),
        "stride": stride,
        "pad": pad,
    }


def both(
    name: str,
    arguments: dict[str, Any],
    *rest: Any,
    quantizer: tuple[float, float, int] | None = None,
    kind: int = packing.KIND_DENSE,
) -> tuple[Any, Any]:
    """The operator's result from the kernel and from the oracle.

    With a quantiser (scale, offset, highest) the argument "codes" is a stream.
    """
    x, weight, scale, bias, *geometry = arguments.values()
    codes = x if quantizer is None else arithmetic.quantize(x, *quantizer[:2], 0, quantizer[2])
    expected = getattr(arithmetic, name)(codes, weight, scale, bias, *geometry, *rest)
    constants = packing.pack(weight, kind), np.stack([scale, bias])
    actual = getattr(kernels, name)(x, *(quantizer or (1.0, 0.0, 0)), *constants, *geometry, *rest)
    return actual, expected


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_convolution_to_codes(shape: tuple[int, ...], bits: int) -> None:
    highest = 2**bits - 1
    actual, expected = both("conv2d_codes", convolution(1, shape, highest), 0, highest)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("with_residual", "relu"), list(product([False, True], repeat=2)))
def test_convolution_to_stream(shape: tuple[int, ...], with_residual: bool, relu: bool) -> None:
    arguments = convolution(2, shape, 255)
    height, width, _, outputs, side, stride, pad = shape
    out = [arithmetic.output_size(size, side, stride, pad) for size in (height, width)]
    residual = None
    if with_residual:
        residual = np.random.default_rng(3).normal(0, 99, (1, *out, outputs)).astype(np.float32)
    stride_and_pad = arguments.pop("stride"), arguments.pop("pad")
    actual, expected = both("conv2d_stream", arguments, residual, *stride_and_pad, relu)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("weight_code", [0, 1, 2, 3])
@pytest.mark.parametrize("code", [0, 1, 255])
def test_extreme_accumulators(weight_code: int, code: int) -> None:
    """No saturation on the way: 512 inputs at the largest magnitudes, 3.5 million in all."""
    codes = np.full((1, 5, 6, 512), code, dtype=np.uint8)
    weight = packing.pack(np.full((17, 3, 3, 512), weight_code, dtype=np.uint8))
    affine = np.array([[1.0] * 17, [0.0] * 17], dtype=np.float32)
    actual = kernels.conv2d_stream(codes, 1, 0, 0, weight, affine, None, 1, 1, False)
    taps = np.outer([2, 3, 3, 3, 2], [2, 3, 3, 3, 3, 2])
    expected = taps * 512 * code * (2 * weight_code - 3)
    np.testing.assert_array_equal(actual[0], np.repeat(expected[..., None], 17, axis=2))


def test_alternating_extremes() -> None:
    """Neighbouring products of opposite sign, where a 16-bit partial sum could hide an overflow."""
    random = np.random.default_rng(5)
    codes = random.choice(np.array([0, 255], dtype=np.uint8), (1, 8, 8, 256))
    weight = random.choice(np.array([0, 3], dtype=np.uint8), (32, 3, 3, 256))
    weight[0], weight[1] = 3, 0
    arguments = {
        "codes": codes,
        "weight": weight,
        "scale": np.ones(32, dtype=np.float32),
        "bias": np.zeros(32, dtype=np.float32),
    }
    actual, expected = both("conv2d_stream", arguments, None, 1, 1, False)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("offset", [-0.5, 0.0, 0.5])
def test_ties_round_to_even(offset: float) -> None:
    """acc * 0.5 + offset hits every half between the codes."""
    codes = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    arguments = {
        "codes": codes,
        "weight": np.full((3, 1, 1, 1), 2, dtype=np.uint8),
        "scale": np.full(3, 0.5, dtype=np.float32),
        "bias": np.full(3, offset, dtype=np.float32),
        "stride": 1,
        "pad": 0,
    }
    actual, expected = both("conv2d_codes", arguments, 0, 255)
    np.testing.assert_array_equal(actual, expected)
    assert actual[0, 0, 3, 0] == round(1.5 + offset)


@pytest.mark.parametrize(("lowest", "highest"), [(0, 3), (1, 15), (0, 255), (255, 255), (7, 7)])
def test_codes_stay_within_their_limits(lowest: int, highest: int) -> None:
    arguments = convolution(6, (9, 9, 12, 20, 3, 1, 1), 255)
    arguments["scale"] *= np.float32(1e30)
    actual, expected = both("conv2d_codes", arguments, lowest, highest)
    np.testing.assert_array_equal(actual, expected)
    assert set(np.unique(actual)) <= {lowest, highest, *range(lowest, highest + 1)}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("highest", [3, 15, 255])
def test_streams_are_quantised_on_the_way_in(shape: tuple[int, ...], highest: int) -> None:
    arguments = convolution(4, shape, highest)
    codes = arguments["codes"]
    random = np.random.default_rng(8)
    stream = (codes.astype(np.float32) / 7 + random.normal(0, 0.1, codes.shape)).astype(np.float32)
    for position, value in enumerate([np.nan, np.inf, -np.inf, 1e30, -1e30]):
        stream.flat[position % stream.size] = value
    arguments["codes"] = stream
    actual, expected = both("conv2d_codes", arguments, 0, highest, quantizer=(7.3, -0.41, highest))
    np.testing.assert_array_equal(actual, expected)


def test_not_a_number_becomes_code_zero() -> None:
    stream = np.array([np.nan, 1.0], dtype=np.float32).reshape(1, 1, 2, 1)
    weight = packing.pack(np.full((1, 1, 1, 1), 2, dtype=np.uint8))
    affine = np.array([[1.0], [0.0]], dtype=np.float32)
    actual = kernels.conv2d_codes(stream, 9, 3, 255, weight, affine, 1, 0, 0, 255)
    assert actual.ravel().tolist() == [0, 12]


@pytest.mark.parametrize(
    ("height", "width", "outputs", "side", "stride", "pad"),
    [
        (32, 32, 16, 3, 1, 1),
        (8, 8, 16, 3, 1, 1),
        (31, 29, 40, 7, 2, 3),
        (5, 4, 3, 3, 2, 1),
        (6, 9, 17, 5, 1, 0),
        (1, 1, 1, 1, 1, 0),
    ],
)
def test_stem(height: int, width: int, outputs: int, side: int, stride: int, pad: int) -> None:
    random = np.random.default_rng(height * width)
    arguments = (
        random.choice(np.array([0, 1, 254, 255], dtype=np.uint8), (1, height, width, 3)),
        random.choice(np.array([-32767, 32767, 1, 0], dtype=np.int16), (outputs, side, side, 3)),
        random.normal(0, 1e-6, outputs).astype(np.float32),
        random.normal(0, 1, outputs).astype(np.float32),
        np.array([125, 0, 255], dtype=np.uint8),
        stride,
        pad,
    )
    image, weight, scale, bias, *rest = arguments
    actual = kernels.stem(image, weight, np.stack([scale, bias]), *rest)
    np.testing.assert_array_equal(actual, arithmetic.stem(*arguments))


# height, width, channels, side, stride, pad
DEPTHWISE = [
    (16, 16, 32, 3, 1, 1),
    (14, 14, 64, 3, 2, 1),
    (7, 7, 104, 3, 1, 1),
    (1, 1, 1, 3, 1, 1),
    (2, 3, 15, 3, 2, 1),
    (5, 4, 17, 3, 1, 0),
    (9, 6, 33, 5, 1, 2),
    (6, 7, 48, 5, 3, 0),
    (3, 5, 40, 1, 1, 0),
    (4, 3, 7, 1, 2, 0),
]


def depthwise(seed: int, shape: tuple[int, ...], highest: int) -> dict[str, Any]:
    """Like `convolution`, with one filter for each channel."""
    height, width, channels, side, stride, pad = shape
    arguments = convolution(seed, (height, width, 1, channels, side, stride, pad), highest)
    random = np.random.default_rng(seed + 1)
    arguments["codes"] = random.integers(
        0, highest + 1, (1, height, width, channels), dtype=np.uint8
    )
    return arguments


@pytest.mark.parametrize("shape", DEPTHWISE, ids=str)
@pytest.mark.parametrize("highest", [3, 7, 255])
def test_depthwise(shape: tuple[int, ...], highest: int) -> None:
    arguments = depthwise(1, shape, highest)
    actual, expected = both("depthwise_codes", arguments, 0, highest, kind=packing.KIND_DEPTHWISE)
    np.testing.assert_array_equal(actual, expected)
    codes = arguments["codes"]
    noise = np.random.default_rng(8).normal(0, 0.1, codes.shape)
    arguments["codes"] = (codes.astype(np.float32) / 7 + noise).astype(np.float32)
    arguments["codes"].flat[0] = np.nan
    actual, expected = both(
        "depthwise_codes",
        arguments,
        1,
        highest,
        quantizer=(7.3, -0.41, highest),
        kind=packing.KIND_DEPTHWISE,
    )
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("weight_code", [0, 3])
def test_extreme_depthwise_accumulators(weight_code: int) -> None:
    """The largest sums, 25 * 3 * 255 = 19,125, within int16."""
    codes = np.full((1, 9, 9, 37), 255, dtype=np.uint8)
    arguments = {
        "codes": codes,
        "weight": np.full((37, 5, 5, 1), weight_code, dtype=np.uint8),
        "scale": np.full(37, 255 / 19125 * (1 if weight_code else -1), dtype=np.float32),
        "bias": np.zeros(37, dtype=np.float32),
        "stride": 1,
        "pad": 2,
    }
    actual, expected = both("depthwise_codes", arguments, 0, 255, kind=packing.KIND_DEPTHWISE)
    np.testing.assert_array_equal(actual, expected)
    assert (actual[0, 2:7, 2:7] == 255).all() and (actual[0, 0, 0] == 92).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_depthwise_geometry(data: st.DataObject) -> None:
    side = data.draw(st.sampled_from(packing.DEPTHWISE_SIDES))
    pad = data.draw(st.integers(0, side // 2 + 1))
    least = max(1, side - 2 * pad)
    sizes = data.draw(st.integers(least, 12)), data.draw(st.integers(least, 20))
    shape = (*sizes, data.draw(st.integers(1, 70)), side, data.draw(st.integers(1, 3)), pad)
    highest = data.draw(st.sampled_from([3, 7, 31, 255]))
    arguments = depthwise(data.draw(st.integers(0, 2**32)), shape, highest)
    actual, expected = both("depthwise_codes", arguments, 0, highest, kind=packing.KIND_DEPTHWISE)
    np.testing.assert_array_equal(actual, expected)


def test_bad_depthwise_arguments_are_errors() -> None:
    codes, weights, scale, bias, stride, pad = depthwise(1, (6, 6, 16, 3, 1, 1), 3).values()
    weight = packing.pack(weights, packing.KIND_DEPTHWISE)
    affine = np.stack([scale, bias])

    def call(x: Any, packed: Any) -> None:
        kernels.depthwise_codes(x, 1, 0, 0, packed, affine, stride, pad, 0, 3)

    call(codes, weight)
    with pytest.raises(ValueError, match="another kind"):
        call(codes, packing.pack(weights))
    with pytest.raises(ValueError, match="another kind"):
        kernels.conv2d_codes(codes, 1, 0, 0, weight, affine, stride, pad, 0, 3)
    with pytest.raises(ValueError, match="channels"):
        call(codes[..., :15].copy(), weight)
    # Field by field: input channels, height, and a kernel whose sums int16 does not hold.
    for fields, message in [
        ({20: 2}, "out of range"),
        ({24: 1}, "out of range"),
        ({24: 7, 28: 7}, "out of range"),
        ({24: 5, 28: 5}, "size"),
        ({16: 64}, "size"),
    ]:
        tampered = weight.copy()
        for offset, value in fields.items():
            tampered[offset] = value
        with pytest.raises(ValueError, match=message):
            call(codes, tampered)


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize(
    ("streams", "channels", "classes"), [(1, 64, 10), (4, 32, 10), (3, 13, 7), (3, 45, 3)]
)
def test_head(streams: int, channels: int, classes: int, mean: bool) -> None:
    random = np.random.default_rng(channels)
    inputs = [random.normal(1, 1, (1, 8, 7, channels)).astype(np.float32) for _ in range(streams)]
    weight = random.normal(0, 1, (classes, channels)).astype(np.float32)
    bias = random.normal(0, 1, classes).astype(np.float32)
    expected = arithmetic.head(inputs, weight, bias, mean)
    np.testing.assert_array_equal(kernels.head(inputs, weight, bias, mean), expected)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_geometry(data: st.DataObject) -> None:
    """The oracle's codes for whatever geometry is legal."""
    side = data.draw(st.sampled_from([1, 3, 5]))
    pad = data.draw(st.integers(0, side // 2 + 1))
    least = max(1, side - 2 * pad)
    shape = (
        data.draw(st.integers(least, 12)),
        data.draw(st.integers(least, 20)),
        data.draw(st.integers(1, 37)),
        data.draw(st.integers(1, 50)),
        side,
        data.draw(st.integers(1, 3)),
        pad,
    )
    highest = data.draw(st.sampled_from([3, 7, 15, 63, 255]))
    arguments = convolution(data.draw(st.integers(0, 2**32)), shape, highest)
    actual, expected = both("conv2d_codes", arguments, 0, highest)
    np.testing.assert_array_equal(actual, expected)


def test_bad_arguments_are_errors() -> None:
    arguments = convolution(1, (8, 8, 16, 16, 3, 1, 1), 3)
    weight = packing.pack(arguments.pop("weight"))
    codes, scale, bias, stride, pad = arguments.values()
    good = [codes, 1.0, 0.0, 0, weight, np.stack([scale, bias]), stride, pad, 0, 3]

    def call(position: int, value: Any) -> None:
        kernels.conv2d_codes(*good[:position], value, *good[position + 1 :])

    for position, value, message in [
        (0, np.zeros((1, 8, 8, 15), np.uint8), "channels"),
        (0, np.zeros((2, 8, 8, 16), np.uint8), "one image"),
        (0, np.zeros((1, 8, 8, 16), np.int16), "uint8 codes or a float32 stream"),
        (4, weight[:-1], "size"),
        (4, weight[:63], "shorter"),
        (5, np.stack([scale, bias, bias]), "scale and bias"),
        (6, 0, "stride"),
        (7, -1, "padding"),
        (9, 256, "0..255"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(position, value)
    for offset, message in [
        (0, "magic"),
        (8, "version"),
        (12, "kind"),
        (16, "size"),
        (28, "shape"),
    ]:
        tampered = weight.copy()
        tampered[offset] = 99
        with pytest.raises(ValueError, match=message):
            call(4, tampered)
