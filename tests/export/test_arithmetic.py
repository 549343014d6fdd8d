"""The oracle's operations against loops over Python integers and single float32 numbers."""

from itertools import product

import numpy as np
import pytest

from export import arithmetic

SHAPES = [
    # height, width, inputs, outputs, kernel, stride, pad
    (5, 4, 3, 5, 3, 1, 1),
    (5, 7, 8, 3, 3, 2, 1),
    (6, 6, 4, 2, 1, 2, 0),
    (4, 5, 2, 3, 5, 1, 2),
    (1, 1, 6, 4, 3, 1, 1),
    (3, 3, 2, 2, 3, 1, 0),
]


def convolve(x: np.ndarray, weight: np.ndarray, stride: int, pad: int, border: list[int]) -> list:
    """Exact accumulators of image 0: nested lists [Ho][Wo][O] of Python integers."""
    _, height, width, inputs = x.shape
    outputs, kh, kw, _ = weight.shape

    def pixel(y: int, x_: int, c: int) -> int:
        inside = 0 <= y < height and 0 <= x_ < width
        return int(x[0, y, x_, c]) if inside else border[c]

    return [
        [
            [
                sum(
                    pixel(row * stride + ky - pad, column * stride + kx - pad, c)
                    * int(weight[o, ky, kx, c])
                    for ky, kx, c in product(range(kh), range(kw), range(inputs))
                )
                for o in range(outputs)
            ]
            for column in range((width + 2 * pad - kw) // stride + 1)
        ]
        for row in range((height + 2 * pad - kh) // stride + 1)
    ]


def affine(accumulators: list, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """float(acc) * scale + bias, one rounding each, [Ho, Wo, O]."""
    return np.array(
        [
            [
                [np.float32(np.float32(np.float32(acc) * s) + b) for acc, s, b in zip(pixel, scale, bias, strict=True)]
                for pixel in row
            ]
            for row in accumulators
        ],
        dtype=np.float32,
    )  # fmt: skip


def code(value: np.float32, lowest: int, highest: int) -> int:
    """Half to even, then clipped, by Python's own rounding."""
    return min(max(round(float(value)), lowest), highest)


class Case:
    def __init__(self, shape: tuple[int, ...], highest: int) -> None:
        height, width, inputs, outputs, kernel, self.stride, self.pad = shape
        random = np.random.default_rng(sum(shape) + highest)
        self.codes = random.integers(0, highest + 1, (1, height, width, inputs), dtype=np.uint8)
        self.weight = random.integers(0, 4, (outputs, kernel, kernel, inputs), dtype=np.uint8)
        # Multiples of 1/2 and 1/4 make many results fall exactly between two codes.
        self.scale = random.choice([-0.25, 0.25, 0.5, 0.013], outputs).astype(np.float32)
        self.bias = random.choice([-1.5, 0, 2, 0.7], outputs).astype(np.float32)
        self.accumulators = convolve(
            self.codes, 2 * self.weight.astype(int) - 3, self.stride, self.pad, [0] * inputs
        )


@pytest.mark.parametrize("highest", [3, 63, 255])
@pytest.mark.parametrize("shape", SHAPES)
def test_convolutions(shape: tuple[int, ...], highest: int) -> None:
    case = Case(shape, highest)
    expected = affine(case.accumulators, case.scale, case.bias)
    arguments = (case.codes, case.weight, case.scale, case.bias)
    found = arithmetic.accumulate(case.codes, case.weight, case.stride, case.pad)
    assert found[0].tolist() == case.accumulators
    codes = arithmetic.conv2d_codes(*arguments, case.stride, case.pad, 1, highest)
    assert codes.dtype == np.uint8
    assert codes[0].tolist() == [
        [[code(value, 1, highest) for value in pixel] for pixel in row] for row in expected
    ]
    residual = np.random.default_rng(1).normal(0, 3, (1, *expected.shape)).astype(np.float32)
    for added, relu in product((None, residual), (False, True)):
        stream = arithmetic.conv2d_stream(*arguments, added, case.stride, case.pad, relu)
        wanted = expected if added is None else expected + added[0]
        wanted = np.where(wanted > 0, wanted, np.float32(0)) if relu else wanted
        assert stream.dtype == np.float32
        np.testing.assert_array_equal(stream[0], wanted)


def test_accumulators_that_float32_cannot_hold_are_exact() -> None:
    """8 bits, 4,096 inputs of 3x3: sums beyond 2^24."""
    codes = np.full((1, 3, 3, 4096), 255, dtype=np.uint8)
    weight = np.full((1, 3, 3, 4096), 3, dtype=np.uint8)
    codes[0, 1, 1, 0] = 254
    exact = 3 * (255 * 9 * 4096 - 1)
    assert int(np.float32(exact)) != exact
    assert int(arithmetic.accumulate(codes, weight, 1, 0)[0, 0, 0, 0]) == exact


@pytest.mark.parametrize(("stride", "pad", "kernel"), [(1, 1, 3), (2, 1, 3), (2, 3, 7)])
def test_stem_pads_with_the_pixel_value_and_rounds_large_sums(
    stride: int, pad: int, kernel: int
) -> None:
    random = np.random.default_rng(kernel)
    image = random.integers(0, 256, (1, 6, 5, 3), dtype=np.uint8)
    weight = random.integers(-32767, 32768, (4, kernel, kernel, 3)).astype(np.int16)
    scale = random.uniform(1e-8, 1e-6, 4).astype(np.float32)
    bias = random.normal(0, 1, 4).astype(np.float32)
    border = np.array([7, 130, 255], dtype=np.uint8)
    accumulators = convolve(image, weight, stride, pad, border.tolist())
    assert max(abs(a) for row in accumulators for p in row for a in p) > 2**24
    expected = np.maximum(affine(accumulators, scale, bias), np.float32(0))
    found = arithmetic.stem(image, weight, scale, bias, border, stride, pad)
    np.testing.assert_array_equal(found[0], expected)


def test_quantize_rounds_half_to_even_and_survives_anything() -> None:
    values = [0.5, 1.5, 2.5, 2.4999, -0.5, 300, -300, np.inf, -np.inf, np.nan]
    x = np.array(values, dtype=np.float32).reshape(1, 1, 1, -1)
    found = arithmetic.quantize(x, 1.0, 0.0, 0, 255).ravel().tolist()
    assert found == [0, 2, 2, 2, 0, 255, 0, 255, 0, 0]
    assert arithmetic.quantize(x, 1.0, 0.0, 2, 5).ravel().tolist() == [2, 2, 2, 2, 2, 5, 2, 5, 2, 2]


def test_quantize_rounds_after_each_step() -> None:
    """The product's last digits are lost before the addition; a fused one would keep them."""
    x = scale = np.float32(1 + 2**-12)
    offset = np.float32(-0.5 - 2**-11)
    assert round(float(x) * float(scale) + float(offset)) == 1
    assert float(np.float32(x * scale) + offset) == 0.5
    stream = np.full((1, 1, 1, 1), x)
    assert arithmetic.quantize(stream, float(scale), float(offset), 0, 3).item() == 0


@pytest.mark.parametrize("branches", [1, 2, 3, 4])
def test_head_is_mean_of_pixels_mean_of_branches_and_a_linear_map(branches: int) -> None:
    random = np.random.default_rng(branches)
    streams = [random.normal(0, 1, (2, 3, 5, 6)).astype(np.float32) for _ in range(branches)]
    weight = random.normal(0, 1, (4, 6)).astype(np.float32)
    bias = random.normal(0, 1, 4).astype(np.float32)
    pooled = np.mean([s.astype(np.float64).mean(axis=(1, 2)) for s in streams], axis=0)
    expected = pooled @ weight.T.astype(np.float64) + bias
    found = arithmetic.head(streams, weight, bias)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
