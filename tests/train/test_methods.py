"""Methods are what their publications say: quantisers, losses, selections, options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_networks import build, digits, narrowed
from torch import Tensor

from train import methods
from train.branches import select_branches, shuffle_channels
from train.methods.adabits import CentreConv, FloorConv
from train.methods.any_precision import AnyPrecisionConv
from train.methods.hot_swap import HotSwapConv, haar, inverse_haar
from train.networks import NETWORKS, ConvShape
from train.quantizers import FULL_PRECISION, BranchConv, QuantizedConv
from train.recipe import SHIPPED, MethodRecipe, RecipeError, load_recipe


def _conv(kind: type[QuantizedConv], bits: tuple[int, ...], **options: object) -> QuantizedConv:
    torch.manual_seed(3)
    return kind(ConvShape(6, 5, 3, 1, 6, 5), bits, **options).double()  # type: ignore[arg-type]


SMOOTH: dict[str, Callable[[Tensor, int], Tensor]] = {
    "floor": lambda v, bits: 2**bits * v - 2 ** (bits - 1),
    "centre": lambda v, bits: 2 * 2**bits * v + 1 - 2**bits,
    "dorefa": lambda v, bits: 2 * (2**bits - 1) * v - (2**bits - 1),
}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    ("kind", "smooth"),
    [
        (FloorConv, "floor"),
        (CentreConv, "centre"),
        (AnyPrecisionConv, "dorefa"),
        (HotSwapConv, "dorefa"),
    ],
)
def test_weight_gradients_are_those_of_the_smooth_part(
    kind: type[QuantizedConv], smooth: str, bits: int
) -> None:
    """Against central differences of the same formula without rounding, in float64."""
    conv = _conv(kind, (2, 4, 8))
    weight = conv.weight.detach()
    direction = torch.randn(weight.shape, dtype=torch.float64)
    # The largest weight sits on the clip of the floor quantiser.
    direction.view(-1)[int(weight.abs().argmax())] = 0.0
    integers = conv.integer_weight(bits)
    assert torch.equal(integers, integers.detach().round())
    (integers * direction).sum().backward()
    assert conv.weight.grad is not None

    def value(w: Tensor) -> float:
        squashed = torch.tanh(w) / (2 * torch.tanh(w).abs().max()) + 0.5
        return float((SMOOTH[smooth](squashed, bits) * direction).sum())

    step = 1e-6
    for index in range(0, weight.numel(), 17):
        shift = torch.zeros(weight.numel(), dtype=torch.float64)
        shift[index] = step
        shift = shift.reshape(weight.shape)
        numeric = (value(weight + shift) - value(weight - shift)) / (2 * step)
        assert float(conv.weight.grad.view(-1)[index]) == pytest.approx(numeric, rel=1e-5, abs=1e-6)


def test_adabits_codes_are_nested() -> None:
    """The code at b bits is the upper b bits of the 8-bit code."""
    conv = _conv(FloorConv, (2, 4, 6, 8))
    with torch.no_grad():
        full = (conv.integer_weight(8) + 128).long()
        for bits in (2, 4, 6):
            assert torch.equal(
                (conv.integer_weight(bits) + 2 ** (bits - 1)).long(), full >> (8 - bits)
            )
        centred = _conv(CentreConv, (2,)).integer_weight(2)
    assert set(centred.unique().tolist()) == {-3.0, -1.0, 1.0, 3.0}


def test_clip_of_activations_has_the_gradient_of_pact() -> None:
    """With normalisation behind it, a range from zero and PACT's clip are the same (up to float32)."""
    torch.manual_seed(0)
    x = torch.rand(64, 6, 5, 5, dtype=torch.float64) * 3
    target = torch.randn(64, 5, 5, 5, dtype=torch.float64)
    conv = _conv(CentreConv, (4,))
    norm = torch.nn.BatchNorm2d(5, eps=1e-30).double()
    with torch.no_grad():
        conv.act_upper.fill_(2.0)
    (norm(conv(x, 4)) * target).sum().backward()
    ours = float(conv.act_upper.grad)  # type: ignore[arg-type]

    alpha = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    clipped = (x / alpha).clamp(0, 1) * 15
    codes = clipped + (clipped.round() - clipped).detach()
    weight = conv.integer_weight(4).detach() / 16
    published = torch.nn.functional.conv2d(alpha * codes / 15, weight, None, 1, 1)
    (norm(published) * target).sum().backward()
    assert ours == pytest.approx(float(alpha.grad), rel=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("upper", [1.0, 2.5])
@pytest.mark.parametrize("bits", [1, 2, 8])
def test_any_precision_weights_are_the_published_formula(bits: int, upper: float) -> None:
    """With the published clip, which is the start, and with a calibrated one, in real units."""
    conv = _conv(AnyPrecisionConv, (bits,))
    assert conv.range_parameters() == [] and float(conv.act_upper) == 1.0
    with torch.no_grad():
        conv.act_upper.fill_(upper)
    x = torch.rand(2, 6, 5, 5, dtype=torch.float64) * 1.5 * upper
    w, levels = conv.weight.detach(), 2**bits - 1
    v = torch.tanh(w) / (2 * torch.tanh(w).abs().max()) + 0.5
    weight = (2 * torch.round(levels * v) / levels - 1) * w.abs().mean()
    activation = torch.round((x / upper).clamp(0, 1) * levels) / levels * upper
    expected = torch.nn.functional.conv2d(activation, weight, None, 1, 1)
    torch.testing.assert_close(conv(x, bits), expected)
    real = torch.tanh(w) / torch.tanh(w).abs().max() * w.abs().mean()
    expected = torch.nn.functional.conv2d(x, real, None, 1, 1)
    torch.testing.assert_close(conv(x, FULL_PRECISION), expected)


@pytest.mark.parametrize("network", ["resnet8", "resnet20", "vgg11"])
@pytest.mark.parametrize("name", ["any-precision", "adabits", "hot-swap"])
def test_eight_bits_start_as_the_full_precision_network(name: str, network: str) -> None:
    """What was learned in full precision is still there when quantised training begins."""
    with narrowed(network) as side:
        images, _ = digits(64, side)
        net = build(MethodRecipe(name, (2, 8)), network, side)
    methods.calibrate(net, images, 1.494)
    with torch.no_grad():
        features = net.stem(images)
        real, quantised = net.classify_full_precision(features)[8], net.classify(features, 8)
    logits = torch.stack([(x - x.mean(0)).flatten() for x in (real, quantised)])
    assert float(torch.corrcoef(logits)[0, 1]) > 0.8


def test_haar_bands_are_orthonormal_and_invertible() -> None:
    matrix = torch.randn(6, 10, dtype=torch.float64)
    bands = haar(matrix)
    torch.testing.assert_close(inverse_haar(bands), matrix)
    assert float(bands.square().sum()) == pytest.approx(float(matrix.square().sum()))
    # The low-low band of a constant is all there is of it.
    assert float(haar(torch.ones(4, 4))[1:].abs().max()) == 0.0


def test_hot_swap_and_its_controls_start_from_the_same_weights() -> None:
    """Gains of one change nothing; other gains do, except where they are fixed."""
    for bands in ("wavelet", "random", "fixed"):
        conv = _conv(HotSwapConv, (1, 4), bands=bands)
        assert isinstance(conv, HotSwapConv)
        torch.testing.assert_close(conv.level_weight(4), conv.weight)
        assert set(conv.integer_weight(1).unique().tolist()) == {-1.0, 1.0}
        with torch.no_grad():
            conv.gains[1, 2] = 0.0
        changed = not torch.allclose(conv.level_weight(4), conv.weight)
        assert changed == (bands != "fixed")
        torch.testing.assert_close(conv.level_weight(1), conv.weight)
        assert (conv.gains in set(conv.range_parameters())) == (bands != "fixed")


def test_lower_levels_learn_from_the_teacher_of_the_method() -> None:
    """Gradients with the method's teacher equal those of the loss written out."""
    images, labels = digits(32)
    for recipe, shares in (
        (MethodRecipe("any-precision", (2, 4, 8)), {4: (0.0, 8), 2: (0.0, 4)}),
        (MethodRecipe("mbquant", (2, 4, 8)), {4: (0.5, 8), 2: (0.5, 8)}),
        (MethodRecipe("adabits", (2, 4, 8)), {4: (1.0, 8), 2: (1.0, 8)}),
    ):
        net = build(recipe)
        methods.calibrate(net, images, 1.494)
        net.eval()
        methods.backward(net, images, labels, methods.find(recipe))
        ours = net.classifier.weight.grad
        net.zero_grad()
        logits = {bits: net(images, bits) for bits in net.bits}
        loss = torch.nn.functional.cross_entropy(logits[8], labels)
        for bits, (hard, teacher) in shares.items():
            target = logits[teacher].detach().softmax(1)
            loss = loss + hard * torch.nn.functional.cross_entropy(logits[bits], labels)
            loss = loss + (1 - hard) * torch.nn.functional.cross_entropy(logits[bits], target)
        loss.backward()
        torch.testing.assert_close(ours, net.classifier.weight.grad, rtol=1e-4, atol=1e-6)


def test_an_external_teacher_guides_every_level() -> None:
    images, labels = digits(32)
    net = build(MethodRecipe(bits=(2,)))
    methods.calibrate(net, images, 1.494)
    net.eval()
    guide = torch.full((32, 10), 0.1)
    losses = methods.backward(net, images, labels, methods.METHODS["mbquant"], guide=guide)
    logits = net(images, 2)
    expected = 0.5 * torch.nn.functional.cross_entropy(logits, labels)
    expected = expected + 0.5 * torch.nn.functional.cross_entropy(logits, guide)
    torch.testing.assert_close(losses[2], expected.detach())


def test_branches_of_the_published_table() -> None:
    assert select_branches((2, 4, 6, 8), "amortised") == {
        2: (1,), 4: (2, 3), 6: (2, 3, 4), 8: (1, 2, 3, 4),
    }  # fmt: skip
    assert select_branches((2, 3, 4), "amortised") == {2: (1,), 3: (1, 2), 4: (1, 2)}
    assert select_branches((2, 6), "serial") == {2: (1,), 6: (1, 2, 3)}
    assert len(build(MethodRecipe(bits=(2, 3, 4))).branches) == 2


@pytest.mark.parametrize("half", ["uniform", "published"])
@pytest.mark.parametrize("network", list(NETWORKS))
def test_half_branch_is_a_slice_of_the_full_one(network: str, half: str) -> None:
    """Filters and channels beyond the half change nothing at 3 bits, those within do."""
    with narrowed(network) as side:
        images, _ = digits(8, side)
        net = build(MethodRecipe(bits=(2, 3, 4), half=half), network, side)
    methods.calibrate(net, images, 1.494)
    net.eval()
    body = net.branches[1]
    with torch.no_grad():
        before = {bits: net(images, bits) for bits in net.bits}
        for conv in (m for m in body.modules() if isinstance(m, BranchConv)):
            conv.weight[conv.shape.half_out :] = 9.0
            if not conv.shape.depthwise:
                conv.weight[:, conv.shape.half_in :] = 9.0
        after = {bits: net(images, bits) for bits in net.bits}
        assert torch.equal(before[2], after[2]) and torch.equal(before[3], after[3])
        assert not torch.equal(before[4], after[4])
        first = next(m for m in body.modules() if isinstance(m, BranchConv))
        first.weight[: first.shape.half_out] *= -1.0
        assert not torch.equal(after[3], net(images, 3))


def test_shuffle_deals_channels_of_branches_in_turn() -> None:
    streams = [
        torch.full((1, 4, 1, 1), float(b)) + torch.arange(4)[None, :, None, None] / 10
        for b in (1, 2)
    ]
    dealt = [s.flatten().tolist() for s in shuffle_channels(streams)]
    assert dealt[0] == pytest.approx([1.0, 2.0, 1.1, 2.1])
    assert dealt[1] == pytest.approx([1.2, 2.2, 1.3, 2.3])
    images, _ = digits(8)
    plain, shuffled = (build(MethodRecipe(shuffle=value)) for value in (False, True))
    for net in (plain, shuffled):
        methods.calibrate(net, images, 1.494)
    shuffled.load_state_dict(plain.state_dict())
    for net in (plain, shuffled):
        net.eval()
    with torch.no_grad():
        assert torch.equal(plain(images, 2), shuffled(images, 2))
        assert not torch.allclose(plain(images, 4), shuffled(images, 4))


def test_each_branch_may_have_its_own_stem() -> None:
    images, _ = digits(8)
    net = build(MethodRecipe(stem="branch"))
    methods.calibrate(net, images, 1.494)
    net.eval()
    with torch.no_grad():
        before = {bits: net(images, bits) for bits in net.bits}
        net.stem.conv.weight[:16] *= -1.0  # what the first branch sees
        after = {bits: net(images, bits) for bits in net.bits}
    changed = {bits for bits in net.bits if not torch.equal(before[bits], after[bits])}
    assert changed == {2, 8}


def test_join_by_the_sum_is_the_mean_times_branches() -> None:
    images, _ = digits(8)
    mean, added = (build(MethodRecipe(join=join)) for join in ("mean", "sum"))
    for net in (mean, added):
        net.eval()
    features = mean.stem(images)
    with torch.no_grad():
        pooled = [mean.pool(features, branch, 6) for branch in (2, 3, 4)]
        bias = mean.classifier.bias
        torch.testing.assert_close(
            added.join(pooled) - bias, 3 * (mean.join(pooled) - bias), rtol=1e-4, atol=1e-3
        )


def test_statistics_belong_to_a_bit_width() -> None:
    images, _ = digits(32)
    net = build(MethodRecipe())
    methods.calibrate(net, images, 1.494)
    norm = next(n for n in net.norms() if n.bits == (4, 6, 8))
    before = {bits: norm.select(bits).running_mean.clone() for bits in norm.bits}  # type: ignore[union-attr]
    with torch.no_grad():
        net(images, 6)
    changed = [
        bits
        for bits in norm.bits
        if not torch.equal(before[bits], norm.select(bits).running_mean)  # type: ignore[arg-type]
    ]
    assert changed == [6]


def test_ranges_of_filters_start_centred_and_cost_nothing() -> None:
    images, labels = digits(32)
    recipe = MethodRecipe(ranges="filter", weight_sigmas=1.494)
    net = build(recipe)
    with torch.no_grad():
        for conv in net.convolutions():
            conv.weight += torch.arange(conv.weight.shape[0])[:, None, None, None]
    methods.calibrate(net, images, recipe.weight_sigmas)
    for conv in net.convolutions():
        assert isinstance(conv, BranchConv)
        used = [len(codes.unique()) for codes in conv.weight_codes()]
        assert min(used) > 1, "a range of the tensor would put whole filters into one code"
    methods.backward(net, images, labels, methods.find(recipe))
    grad = next(net.convolutions()).weight_upper.grad  # type: ignore[union-attr]
    assert grad is not None and grad.shape == (16, 1, 1, 1)


@pytest.mark.parametrize(
    "recipe", [MethodRecipe(), MethodRecipe(ranges="filter"), MethodRecipe("adabits")]
)
def test_guard_keeps_every_range_open(recipe: MethodRecipe) -> None:
    net = build(recipe)
    kept, *closed = [pair for conv in net.convolutions() for pair in conv.ranges()]
    before = kept[1].detach().clone()
    with torch.no_grad():
        for lower, upper in closed:
            upper.copy_(lower - 1.0)
    methods.guard(net)
    assert torch.equal(kept[1], before)
    for lower, upper in closed:
        torch.testing.assert_close(upper - lower, torch.full_like(lower, 1e-3), rtol=1e-3, atol=0)


def test_balance_slows_what_belongs_to_low_bit_widths() -> None:
    images, labels = digits(32)
    moved = {}
    for balance in (1.0, 0.5):
        net = build(MethodRecipe())
        methods.calibrate(net, images, 1.494)
        conv = net.branches[0].blocks[0].conv1  # type: ignore[union-attr, index]
        optimizer = torch.optim.Adam(net.range_parameters(), lr=1e-3)
        methods.backward(net, images, labels, methods.METHODS["mbquant"])
        before = conv.act_upper.detach().clone(), conv.weight_upper.detach().clone()
        methods.balanced_step(net, optimizer, balance)
        moved[balance] = (conv.act_upper - before[0]).detach(), conv.weight_upper - before[1]
    # The first branch serves 2 and 8 bits: three steps of two bits apart.
    torch.testing.assert_close(
        moved[0.5][0], moved[1.0][0] * torch.tensor([0.125, 1.0]), rtol=1e-3, atol=1e-7
    )
    torch.testing.assert_close(moved[0.5][1], moved[1.0][1])


@pytest.mark.parametrize(
    ("network", "recipe", "message"),
    [
        ("resnet8", MethodRecipe("dedicated"), "a dedicated network has one level"),
        ("resnet8", MethodRecipe(bits=(1, 2)), "mbquant trains 2 to 8 bits"),
        ("resnet8", MethodRecipe("adabits", join="sum"), "method.join: has a meaning for mbquant"),
        ("resnet8", MethodRecipe(quantizer="floor"), "method.quantizer: has a meaning for adabits"),
        ("vgg11", MethodRecipe(shuffle=True), "only residual networks"),
        ("resnet8", MethodRecipe(shuffle=True, bits=(4, 5)), "not with 5 or 7 bits"),
        ("resnet8", MethodRecipe(calibration_images=0), "no constant to start from"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    network: str, recipe: MethodRecipe, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        build(recipe, network)


def test_published_recipes_differ_from_their_base_in_what_they_name(tmp_path: Path) -> None:
    base = load_recipe("paper/cifar10-resnet20")
    files = sorted((SHIPPED / "paper").glob("*.toml"))
    assert len(files) > 20
    for file in files:
        recipe = load_recipe(file)
        methods.check(recipe)
        assert recipe.name.startswith(file.stem)
        if file.stem.startswith("cifar10-"):
            assert recipe.data == base.data and recipe.network == base.network
    loop = tmp_path / "loop.toml"
    loop.write_text('extends = "loop.toml"\n')
    with pytest.raises(RecipeError, match="does not extend this"):
        load_recipe(loop)
    (tmp_path / "orphan.toml").write_text('extends = "nothing"\n')
    with pytest.raises(RecipeError, match="nothing: no such recipe"):
        load_recipe(tmp_path / "orphan.toml")
