"""The quantiser's values and gradients, and the integer form of the convolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from train.branches import SwitchableBatchNorm, accumulator_unit
from train.networks import ConvShape
from train.quantizers import FULL_PRECISION, BranchConv, largest_code, quantize

UNIT = accumulator_unit(BranchConv)


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_codes_are_the_rounded_clipped_values(bits: int) -> None:
    x = torch.linspace(-1.0, 4.0, 1001)
    lower, upper, largest = 0.25, 3.0, largest_code(bits)
    codes = quantize(x, torch.tensor(lower), torch.tensor(upper), torch.tensor(float(largest)))
    expected = [
        round(min(max((float(v) - lower) / (upper - lower), 0.0), 1.0) * largest) for v in x
    ]
    assert codes.tolist() == pytest.approx(expected, abs=0)
    assert codes.min() == 0 and codes.max() == largest


def test_halfway_values_round_to_even() -> None:
    x = torch.tensor([0.5, 1.5, 2.5])
    codes = quantize(x, torch.tensor(0.0), torch.tensor(3.0), torch.tensor(3.0))
    assert codes.tolist() == [0.0, 2.0, 2.0]


def test_gradients_are_those_of_the_clip_without_the_rounding() -> None:
    torch.manual_seed(0)
    x = torch.randn(4000) * 2.0
    weights = torch.randn(4000)

    def smooth(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        inside = (x > lower) & (x < upper)  # clipped elements give no gradient, to the range either
        return torch.where(inside, 15.0 * (x - lower) / (upper - lower), 0.0)

    def gradients(function: object) -> list[Tensor]:
        leaves = [x.clone(), torch.tensor(-0.5), torch.tensor(2.5)]
        for leaf in leaves:
            leaf.requires_grad_()
        (function(*leaves) * weights).sum().backward()  # type: ignore[operator]
        return [leaf.grad for leaf in leaves]  # type: ignore[misc]

    ours = gradients(lambda x, lower, upper: quantize(x, lower, upper, torch.tensor(15.0)))
    for actual, expected in zip(ours, gradients(smooth), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def test_range_gradients_match_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(500, generator=generator, dtype=torch.float64) * 2.0  # all inside (-1, 3)
    weights = torch.randn(500, generator=generator, dtype=torch.float64)

    def smooth(lower: float, upper: float) -> float:
        return float((weights * 63.0 * (x - lower) / (upper - lower)).sum())

    lower, upper = torch.tensor(-1.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    codes = quantize(x.float(), lower, upper, torch.tensor(63.0))
    (codes * weights.float()).sum().backward()
    step = 1e-5
    by_lower = (smooth(-1.0 + step, 3.0) - smooth(-1.0 - step, 3.0)) / (2 * step)
    by_upper = (smooth(-1.0, 3.0 + step) - smooth(-1.0, 3.0 - step)) / (2 * step)
    assert float(lower.grad) == pytest.approx(by_lower, rel=1e-4)  # type: ignore[arg-type]
    assert float(upper.grad) == pytest.approx(by_upper, rel=1e-4)  # type: ignore[arg-type]


def _conv(bits: tuple[int, ...] = (4, 6)) -> BranchConv:
    torch.manual_seed(2)
    conv = BranchConv(ConvShape(8, 12, 3, 1, 8, 12), bits)
    conv.calibrate_weights(1.494)
    with torch.no_grad():
        conv.act_lower.copy_(torch.tensor([-0.1, 0.05]))
        conv.act_upper.copy_(torch.tensor([2.0, 2.5]))
    return conv


@pytest.mark.parametrize("bits", [4, 6])
def test_integer_form_equals_the_published_form(bits: int) -> None:
    """Accumulator and scaled eps against weights in thirds, codes over L and the ordinary eps."""
    conv, norm = _conv(), SwitchableBatchNorm(12, {b: UNIT(b) for b in (4, 6)})
    for each in norm.norms.values():
        each.momentum = None  # statistics of this batch alone: their starts have other units
    x = torch.rand(5, 8, 9, 9) * 3.0
    largest = largest_code(bits)
    norm.train()
    ours = norm(conv(x, bits), bits)

    lower, upper = conv.activation_range(bits)
    activations = torch.round(((x - lower) / (upper - lower)).clamp(0, 1) * largest) / largest
    weights = 2.0 * (conv.weight_codes().float() / 3.0 - 0.5)
    real = F.conv2d(activations, weights, padding=1)
    reference = torch.nn.BatchNorm2d(12, momentum=None)
    torch.testing.assert_close(ours, reference(real), rtol=1e-4, atol=1e-4)

    norm.eval()
    reference.eval()
    accumulator = conv(x, bits)
    assert torch.equal(accumulator, accumulator.round())
    torch.testing.assert_close(norm(accumulator, bits), reference(real), rtol=1e-4, atol=1e-4)
    scale, bias = norm.affine(bits)
    folded = accumulator.double() * scale[:, None, None] + bias[:, None, None]
    torch.testing.assert_close(folded.float(), reference(real), rtol=1e-4, atol=1e-4)


def test_padding_is_code_zero() -> None:
    conv = _conv()
    x = torch.full(
        (1, 8, 4, 4), float(conv.act_lower[0].detach())
    )  # code 0 everywhere, the border too
    assert torch.count_nonzero(conv(x, 4)) == 0


def test_full_precision_does_not_quantise() -> None:
    conv = _conv()
    x = torch.rand(2, 8, 5, 5)
    assert torch.equal(conv(x, FULL_PRECISION), F.conv2d(x, conv.weight, padding=1))


def test_switched_norm_touches_one_bit_width() -> None:
    norm = SwitchableBatchNorm(3, {b: UNIT(b) for b in (2, 8)})
    norm.train()
    norm(torch.randn(4, 3, 2, 2) + 5.0, 8)
    assert torch.count_nonzero(norm.select(2).running_mean) == 0  # type: ignore[arg-type]
    assert torch.count_nonzero(norm.select(8).running_mean) == 3  # type: ignore[arg-type]
