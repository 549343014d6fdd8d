"""Training steps: symmetry between branches, distillation, calibration."""

from __future__ import annotations

from statistics import NormalDist

import pytest
import torch

from train import methods
from train.branches import AMORTISED, MultiBranchNet
from train.data import DataRecipe, generator, load_dataset
from train.engine import build_network
from train.quantizers import HALF_NORMAL_STD, largest_code, least_squares_range
from train.recipe import MethodRecipe, NetworkRecipe, Recipe

MBQUANT = methods.METHODS["mbquant"]


def _digits(
    count: int, network: str = "resnet8"
) -> tuple[MultiBranchNet, torch.Tensor, torch.Tensor]:
    dataset = load_dataset(DataRecipe(), "train")
    net = build_network(Recipe(network=NetworkRecipe(network)), dataset)
    images = torch.from_numpy(dataset.images[:count]).permute(0, 3, 1, 2)
    return net, images, torch.from_numpy(dataset.labels[:count])


def _train(net: MultiBranchNet, images: torch.Tensor, labels: torch.Tensor, steps: int) -> None:
    sgd = torch.optim.SGD(net.model_parameters(), lr=0.05, momentum=0.9)
    adam = torch.optim.Adam(net.range_parameters(), lr=1e-3)
    net.train()
    for _ in range(steps):
        sgd.zero_grad()
        adam.zero_grad()
        methods.backward(net, images, labels, MBQUANT)
        sgd.step()
        adam.step()
        methods.guard(net)


@pytest.mark.parametrize(("noise", "share"), [(0.0, 0.99), (0.3, 0.9)])
def test_branches_differ_after_training_from_a_shared_full_precision_start(
    noise: float, share: float
) -> None:
    """Branches 2 and 3 always run together: equal starts would leave them equal for ever.

    Without noise the projections, which have no counterpart in the source, tell them apart.
    """
    net, images, labels = _digits(128)
    donor, _, _ = _digits(2)
    state = {"conv1.weight": donor.stem.conv.weight}
    state |= {f"fc.{name}": value for name, value in donor.classifier.state_dict().items()}
    state |= {f"bn1.{name}": value for name, value in donor.stem.bn.state_dict().items()}
    for index, block in enumerate(donor.branches[0].blocks):  # type: ignore[arg-type]
        for layer in ("1", "2"):
            prefix = f"layer{index + 1}.0."
            state[f"{prefix}conv{layer}.weight"] = getattr(block, f"conv{layer}").weight
            norm = getattr(block, f"bn{layer}").norms["full"]
            state |= {f"{prefix}bn{layer}.{name}": v for name, v in norm.state_dict().items()}
    methods.copy_full_precision(net, state, noise, generator(1))
    methods.calibrate(net, images, 1.494)
    _train(net, images, labels, 5)
    second, third = (
        [m.weight_codes() for m in net.branches[i].modules() if hasattr(m, "weight_codes")]
        for i in (1, 2)
    )
    shares = [float((a == b).float().mean()) for a, b in zip(second, third, strict=True)]
    assert max(shares) < share, shares
    features = net.stem(images)
    outputs = [net.pool(features, branch, 4) for branch in (2, 3)]
    assert not torch.allclose(outputs[0], outputs[1])


def test_codes_of_a_branch_do_not_depend_on_the_level() -> None:
    net, images, _ = _digits(8)
    methods.calibrate(net, images, 3.0)
    convs = list(net.convolutions())
    before = [conv.integer_weight().clone() for conv in convs]
    net.eval()
    seen: dict[int, list[torch.Tensor]] = {}
    for bits in net.bits:
        net(images, bits)
        seen[bits] = [conv.integer_weight() for conv in convs]
    for codes in seen.values():
        assert all(torch.equal(a, b) for a, b in zip(before, codes, strict=True))
    assert all(set(codes.unique().tolist()) <= {-3.0, -1.0, 1.0, 3.0} for codes in before)


def test_selection_is_the_published_one() -> None:
    assert {b: AMORTISED[b] for b in (2, 4, 6, 8)} == {
        2: (1,),
        4: (2, 3),
        6: (2, 3, 4),
        8: (1, 2, 3, 4),
    }


def test_gradients_sum_over_levels_and_reach_every_branch() -> None:
    net, images, labels = _digits(16)
    methods.calibrate(net, images, 1.494)
    net.eval()  # fixed statistics: the levels do not influence one another
    methods.backward(net, images, labels, methods.find(MethodRecipe(distillation=False)))
    together = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    for bits in net.bits:
        torch.nn.functional.cross_entropy(net(images, bits), labels).backward()
    for name, p in net.named_parameters():
        if p.grad is None:
            assert "norms.full" in name
            continue
        torch.testing.assert_close(together[name], p.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_teacher_receives_no_gradient_from_its_students() -> None:
    net, images, labels = _digits(16)
    methods.calibrate(net, images, 1.494)
    net.eval()
    net.bits = (8,)
    methods.backward(net, images, labels, MBQUANT)
    # Branch 1 at 8 bits only: its 8-bit ranges must get the same gradient with students beside it.
    alone = net.branches[0].blocks[0].conv1.act_upper.grad.clone()  # type: ignore[union-attr]
    net.zero_grad()
    net.bits = (4, 8)
    methods.backward(net, images, labels, MBQUANT)
    both = net.branches[0].blocks[0].conv1.act_upper.grad  # type: ignore[union-attr]
    torch.testing.assert_close(alone, both)


def test_calibration_starts_from_the_data() -> None:
    net, images, _ = _digits(256)
    methods.calibrate(net, images, 3.0)
    for conv in net.convolutions():
        assert conv.weight_upper.item() == pytest.approx(3 * conv.weight.std().item(), rel=1e-5)
        assert bool((conv.act_upper > conv.act_lower).all())
        assert not conv.calibrating


def test_least_squares_ranges_are_where_their_errors_balance() -> None:
    """With one code above zero it is the mean of what exceeds its half (Lloyd's condition)."""
    normal = NormalDist()
    upper = least_squares_range(1)
    half = upper / 2
    assert upper == pytest.approx(normal.pdf(half) / (1 - normal.cdf(half)), abs=0.01)
    ranges = [least_squares_range(largest_code(bits)) for bits in range(1, 9)]
    assert ranges == sorted(ranges) and ranges[0] < 1.5 < ranges[1] < 3.0 < ranges[-1]


def test_activation_ranges_may_fit_each_level() -> None:
    uppers = {}
    for start in ("three-sigma", "least-squares"):
        net, images, _ = _digits(256)
        methods.calibrate(net, images, 1.494, start)
        first = net.branches[0].blocks[0].conv1  # type: ignore[union-attr]
        uppers[start] = first.act_upper / (3.0 * net.stem(images).std() / HALF_NORMAL_STD)
    levels = [2, 8]  # of branch 1
    assert uppers["three-sigma"].tolist() == pytest.approx([1.0, 1.0], rel=1e-3)
    expected = [least_squares_range(largest_code(bits)) / 3.0 for bits in levels]
    assert uppers["least-squares"].tolist() == pytest.approx(expected, rel=1e-3)
