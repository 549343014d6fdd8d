"""Folding: the integer network computes what the trained, fake-quantised one does."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from export import costs, folding, integer
from export.integer import IntegerNetworkError
from train import methods
from train.branches import MultiBranchNet, Stem
from train.data import DataRecipe, load_dataset
from train.engine import build_network
from train.networks import StemShape
from train.recipe import NetworkRecipe, Recipe

ALL_BITS = (2, 4, 6, 8)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return load_dataset(DataRecipe(), "test").images[:64]


@pytest.fixture(scope="module")
def network() -> MultiBranchNet:
    """A few steps of training: every range, scale and bias is away from where it started."""
    torch.manual_seed(1)
    dataset = load_dataset(DataRecipe(), "train")
    net = build_network(Recipe(network=NetworkRecipe("resnet8")), dataset)
    batch = torch.from_numpy(dataset.images[:128]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(dataset.labels[:128])
    methods.calibrate(net, batch, 1.494)
    sgd = torch.optim.SGD(net.model_parameters(), lr=0.05, momentum=0.9)
    adam = torch.optim.Adam(net.range_parameters(), lr=1e-2)
    net.train()
    for _ in range(12):
        sgd.zero_grad()
        adam.zero_grad()
        methods.backward(net, batch, labels, methods.METHODS["mbquant"])
        sgd.step()
        adam.step()
        methods.guard(net)
    with torch.no_grad():
        # What ReLU and the requantiser fold into must survive scales of either sign.
        for norm in net.norms():
            for bits in ALL_BITS:
                if str(bits) in norm.norms:
                    norm.select(bits).weight[::5] *= -1
        for conv in net.convolutions():
            conv.act_lower += torch.linspace(-0.1, 0.1, len(conv.act_lower))
    return net.eval()


@pytest.fixture(scope="module")
def folded(network: MultiBranchNet) -> integer.IntegerNetwork:
    return folding.fold(network)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_every_block_computes_what_was_trained(
    network: MultiBranchNet, folded: integer.IntegerNetwork, images: np.ndarray, bits: int
) -> None:
    """Block by block from the same input, so that no difference is amplified by later layers.

    Scales are rounded to float32, results after each step: an activation within about 1e-6 steps of
    the border between two codes may fall to either side. Such a code reaches 3x3 pixels in every
    channel, 1 % of the outputs here; all others agree within float32 rounding.
    """
    level = folded.level(bits)
    with torch.inference_mode():
        x = torch.from_numpy(images).permute(0, 3, 1, 2)
        features = network.stem(x)
        for branch, blocks in zip(level.branches, level.bodies, strict=True):
            stream = features
            body = network.branches[branch - 1]
            for block, trained in zip(blocks, body.blocks, strict=True):
                ours = stream.permute(0, 2, 3, 1).contiguous().numpy()
                found = integer.run_step(block, ours, "block", integer.Trace())
                stream = trained(stream, bits)
                expected = stream.permute(0, 2, 3, 1).numpy()
                close = np.isclose(found, expected, rtol=1e-5, atol=2e-5)
                assert close.mean() > 0.97, (branch, close.mean())
                # A code that differs moves one product of one 3x3 neighbourhood by one step.
                step = 3 * np.abs(block.conv2.scale).max()
                if block.shortcut is not None:
                    step += 3 * np.abs(block.shortcut.conv.scale).max()
                assert np.abs(found - expected).max() < 4 * step


@pytest.mark.parametrize("bits", ALL_BITS)
def test_whole_network(
    network: MultiBranchNet, folded: integer.IntegerNetwork, images: np.ndarray, bits: int
) -> None:
    """Codes that fall to the other side are amplified on the way: medians, not maxima, are tight."""
    with torch.inference_mode():
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2), bits).numpy()
    found = integer.run(folded, bits, images)
    scale = np.abs(expected).max(axis=1)
    assert np.median(np.abs(found - expected).max(axis=1) / scale) < (0.02 if bits < 6 else 0.005)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.95


@pytest.mark.parametrize("largest", [32767, 127])
def test_stem(network: MultiBranchNet, images: np.ndarray, largest: int) -> None:
    """The network rounds its stem as the file does: only float32 rounding is left between them."""
    layer = copy.deepcopy(network.stem)
    layer.largest = largest
    stem = folding.fold_stem(layer)
    with torch.inference_mode():
        features = layer(torch.from_numpy(images).permute(0, 3, 1, 2))
    expected = features.permute(0, 2, 3, 1).numpy()
    found = integer.arithmetic.stem(
        images, stem.weight, stem.scale, stem.bias, stem.pad_value, stem.stride, stem.pad
    )
    assert np.abs(found - expected).max() < 2e-6 * expected.max()
    assert stem.weight.dtype == np.int16
    assert (np.abs(stem.weight.astype(int)).max(axis=(1, 2, 3)) == largest).all()


@pytest.mark.parametrize(("bits", "bound"), [(16, 1e-4), (8, 2e-2)])
def test_stem_has_the_precision_of_its_bits(
    network: MultiBranchNet, images: np.ndarray, bits: int, bound: float
) -> None:
    """Rounded weights against the weights themselves, as a share of the largest feature."""
    stem = copy.deepcopy(network.stem).double()
    stem.largest = 2 ** (bits - 1) - 1
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        rounded = stem(x)
        border = stem.pad_value.double()[:, None, None]
        padded = torch.nn.functional.pad(x.double() - border, [stem.pad] * 4) + border
        mean, std = stem.pixel_mean[:, None, None], stem.pixel_std[:, None, None]
        exact = torch.relu(stem.bn(stem.conv((padded - mean) / std)))
    assert bound / 100 < float((rounded - exact).abs().max()) / float(exact.max()) < bound


def test_stem_that_batch_normalisation_switched_off_is_its_bias() -> None:
    stem = Stem(StemShape(4), (100.0, 90.0, 80.0), (60.0, 50.0, 40.0), 0.1).eval()
    with torch.no_grad():
        stem.bn.weight[1] = 0
        stem.bn.bias[1] = 0.75
    folded = folding.fold_stem(stem)
    image = np.full((1, 3, 3, 3), 255, dtype=np.uint8)
    found = integer.arithmetic.stem(
        image, folded.weight, folded.scale, folded.bias, folded.pad_value, 1, 1
    )
    assert (found[..., 1] == 0.75).all()


def test_levels_share_one_array_of_codes_for_each_branch(folded: integer.IntegerNetwork) -> None:
    seen: dict[tuple[int, str], int] = {}
    for level in folded.levels.values():
        for branch, name, conv in level.convolutions():
            assert seen.setdefault((branch, name), id(conv.codes)) == id(conv.codes)
    assert {branch for branch, _ in seen} == {1, 2, 3, 4}


def _broken(network: MultiBranchNet, what: str) -> MultiBranchNet:
    net = copy.deepcopy(network)
    block = net.branches[1].blocks[1]
    with torch.no_grad():
        if what == "range":
            block.conv2.act_upper[0] = block.conv2.act_lower[0]
        elif what == "norm":
            block.bn1.select(4).running_var[2] = float("nan")
        elif what == "stem":
            net.stem.bn.running_var[0] = -1
        elif what == "pixels":
            net.stem.pixel_std[1] = 0
        elif what == "head":
            net.classifier.weight[0, 0] = float("inf")
        elif what == "kind":
            block.conv1 = torch.nn.Conv2d(16, 32, 3)
    return net


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("range", r"branches\.1\.blocks\.1\.conv2 at 4 bits: activation range .* is empty"),
        ("norm", r"branches\.1\.blocks\.1\.bn1 at 4 bits: batch normalisation is not finite"),
        ("stem", "stem: a batch-normalisation variance is not positive"),
        ("pixels", "stem: the pixel standard deviation must be positive"),
        ("head", "head: a scale, weight or bias is not a finite number"),
        ("kind", r"branches\.1\.blocks\.1\.conv1: is a Conv2d; only a BranchConv"),
    ],
)
def test_a_network_that_is_broken_names_the_layer(
    network: MultiBranchNet, what: str, message: str
) -> None:
    with pytest.raises(IntegerNetworkError, match=message):
        folding.fold(_broken(network, what))


def test_costs_of_resnet20_are_the_published_ones() -> None:
    """Body 40.370 M multiply-accumulates a branch, storage 0.34 MB with 2, 4, 6 and 8 bits."""
    net = MultiBranchNet(
        "resnet20", tuple("abcdefghij"), (32, 32), ALL_BITS, (120.0,) * 3, (60.0,) * 3
    )
    folded = folding.fold(net)
    body, fixed = 40_370_176, 442_368 + 640
    for bits in ALL_BITS:
        cost = costs.level_cost(folded, bits)
        assert (cost.body_macs, cost.fixed_macs) == (bits // 2 * body, fixed)
        assert cost.macs == bits // 2 * body + fixed
        # A branch of 2-bit weights for every two bits: as many operations as one b-bit network.
        assert cost.bops == body * bits**2 + 1024 * fixed
    assert costs.storage_bytes(folded) == 337_960
