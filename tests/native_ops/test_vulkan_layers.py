"""Every shader against the oracle, bit for bit, over generated shapes."""

from __future__ import annotations

import numpy as np
import pytest
from vulkan_plans import Maker, differences, level_of

from export.plan import NONE

pytestmark = [pytest.mark.vulkan, pytest.mark.slow, pytest.mark.usefixtures("vulkan")]

FORMS = ("direct", "stream", "codes", "both", "all")
# Sums of 16-bit halves are taken apart every 84 channels; blocks of weights hold 16 outputs.
CHANNELS = (1, 2, 3, 4, 5, 12, 16, 17, 31, 84, 85, 170)
KERNELS = (((3, 3), 1, 1), ((3, 3), 2, 1), ((1, 1), 1, 0), ((1, 1), 2, 0), ((5, 5), 1, 2),
           ((3, 1), 1, 1), ((2, 4), 3, 0), ((7, 7), 2, 3))  # fmt: skip


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not F(2x2,3x3), which has tests of its own."""
    monkeypatch.setenv("EDGE_VULKAN_CONV", "direct")


def size(random: np.random.Generator) -> tuple[int, int]:
    return int(random.integers(1, 15)), int(random.integers(1, 15))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("kernel", "stride", "pad"), KERNELS, ids=str)
def test_convolutions(
    product: str, kernel: tuple[int, int], stride: int, pad: int, seed: int
) -> None:
    random = np.random.default_rng([seed, *kernel, stride])
    height, width = size(random)
    height, width = max(height, kernel[0] - 2 * pad), max(width, kernel[1] - 2 * pad)
    inputs, outputs = (int(n) for n in random.choice(CHANNELS, 2))
    highest, form = int(random.choice([3, 15, 63, 255])), FORMS[seed % len(FORMS)]
    maker = Maker(seed, height, width)
    stream, codes = maker.stem(inputs, 1, 1, 0, (highest,), pad)
    values = maker.convolution(codes, outputs, kernel, stride, pad, highest, form)
    logits = maker.head([stream], 5, True)
    assert differences(maker.built, [stream, codes, *values], logits) == []


@pytest.mark.parametrize("channels", [80, 84, 168, 300])
def test_the_largest_sums(product: str, channels: int) -> None:
    """Codes of 255 and weights of 3 everywhere: what 16-bit halves have to hold."""
    maker = Maker(channels, 4, 4)
    maker.lowest = 255
    stream, codes = maker.stem(channels, 1, 1, 0, (255,), 1)
    assert (maker.array(codes) == 255).all()
    maker.lowest = None
    values = maker.convolution(codes, 20, (3, 3), 1, 1, 255, "both", weight_codes=3)
    logits = maker.head([stream], 3, True)
    assert differences(maker.built, values, logits) == []


@pytest.mark.parametrize(("outputs", "outputs_each"), [(20, 4), (52, 8), (64, 8)])
@pytest.mark.parametrize(("kernel", "pad"), [((3, 3), 1), ((1, 1), 0)], ids=str)
def test_large_tiles(
    product: str, kernel: tuple[int, int], pad: int, outputs: int, outputs_each: int
) -> None:
    """Maps so large that an invocation computes four pixels, of one quad of outputs or of two; neither
    pixels nor quads are multiples of that."""
    maker = Maker(outputs, 61, 67)
    stream, codes = maker.stem(20, 3, 1, 1, (63,), pad)
    values = maker.convolution(codes, outputs, kernel, 1, pad, 63, "both")
    logits = maker.head([stream], 5, True)
    stem, conv = level_of(maker.built).dispatches()[:2]
    # Products of the sizes, and what fills the last workgroups.
    assert 4 * 4 * stem.invocations <= 1.7 * 20 * 61 * 67
    assert 4 * outputs_each * conv.invocations <= 1.7 * outputs * 61 * 67
    assert 2 * 4 * 4 * stem.invocations > 20 * 61 * 67
    assert 2 * 4 * outputs_each * conv.invocations > outputs * 61 * 67
    assert differences(maker.built, [stream, codes, *values], logits) == []


@pytest.mark.parametrize("outputs", [1, 6, 16, 33])
@pytest.mark.parametrize("form", FORMS[1:])
def test_residuals(product: str, form: str, outputs: int) -> None:
    maker = Maker(outputs, 9, 6)
    stream, codes = maker.stem(12, 3, 1, 1, (15,), 1)
    added, _ = maker.stem(outputs, 3, 1, 1, (15,), 0)
    values = maker.convolution(codes, outputs, (3, 3), 1, 1, 15, form, residual=added)
    logits = maker.head([stream], 5, True)
    assert differences(maker.built, [added, *values], logits) == []


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [1, 4, 7, 16, 40])
def test_depthwise(channels: int, stride: int, side: int) -> None:
    maker = Maker(channels + side, 9, 11)
    highest = (3, 15, 63, 255)[(channels + side + stride) % 4]
    stream, codes = maker.stem(channels, 1, 1, 0, (highest,), side // 2)
    form = FORMS[(channels + stride) % len(FORMS)]
    values = maker.convolution(
        codes, channels, (side, side), stride, side // 2, highest, form, NONE, True
    )
    logits = maker.head([stream], 5, True)
    assert differences(maker.built, values, logits) == []


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("outputs", [1, 6, 16, 37])
def test_stems(outputs: int, stride: int, kernel: int) -> None:
    maker = Maker(outputs + kernel, 13, 8)
    values = maker.stem(outputs, kernel, stride, kernel // 2, (15, 255), 1)
    logits = maker.head(values[:1], 5, True)
    assert differences(maker.built, values, logits) == []


@pytest.mark.parametrize("pool", [(0, 0, 0), (2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 3, 2)], ids=str)
@pytest.mark.parametrize("channels", [1, 6, 16, 21])
def test_streams(channels: int, pool: tuple[int, int, int]) -> None:
    """More channels than there are, fewer, and as many."""
    maker = Maker(channels, 10, 7)
    (stream,) = maker.stem(16, 3, 1, 1, (), 0)
    values = maker.fork(stream, pool, channels, True, 2)
    values += maker.fork(stream, pool, channels, False, 1)
    logits = maker.head([stream], 5, True)
    assert differences(maker.built, values, logits) == []


@pytest.mark.parametrize("pool", [(2, 2, 0), (3, 2, 1), (3, 1, 1), (1, 1, 0)], ids=str)
@pytest.mark.parametrize("channels", [1, 6, 16, 21])
def test_pools_of_codes(channels: int, pool: tuple[int, int, int]) -> None:
    maker = Maker(channels, 10, 7)
    stream, codes = maker.stem(channels, 3, 1, 1, (255,), 0)
    values = maker.pool(codes, pool)
    logits = maker.head([stream], 5, True)
    assert differences(maker.built, values, logits) == []


@pytest.mark.parametrize("mean", [True, False], ids=["mean", "sum"])
@pytest.mark.parametrize(("branches", "channels", "classes"), [(1, 5, 1), (4, 33, 10), (3, 16, 70)])
def test_heads(branches: int, channels: int, classes: int, mean: bool) -> None:
    maker = Maker(channels, 7, 5)
    streams = [maker.stem(channels, 3, 2, 1, (), 0)[0] for _ in range(branches)]
    logits = maker.head(streams, classes, mean)
    assert differences(maker.built, streams, logits) == []


def test_a_wrong_expectation_would_be_found() -> None:
    maker = Maker(0, 6, 6)
    stream, codes = maker.stem(8, 3, 1, 1, (15,), 1)
    values = maker.convolution(codes, 8, (3, 3), 1, 1, 15, "direct")
    logits = maker.head([stream], 5, True)
    maker.built.expected[values[0]] = maker.array(values[0]) ^ 1
    assert any(f"value {values[0]}:" in text for text in differences(maker.built, values, logits))
