"""Costs of networks against the published sizes and the figures of the literature."""

from __future__ import annotations

import functools

import pytest

from train import methods
from train.costs import Costs, recipe_costs
from train.published import published_size
from train.recipe import MethodRecipe, NetworkRecipe, Recipe

SETS = ((2, 3, 4), (2, 4, 6, 8))
DATASETS = {
    "cifar10": (10, (32, 32)),
    "cifar100": (100, (32, 32)),
    "imagenet": (1000, (224, 224)),
}


@functools.cache
def _costs(
    dataset: str, network: str, bits: tuple[int, ...], method: str = "mbquant", **options: str
) -> Costs:
    classes, size = DATASETS[dataset]
    settings = MethodRecipe(name=method, bits=bits, **options)  # type: ignore[arg-type]
    return recipe_costs(Recipe(network=NetworkRecipe(network), method=settings), classes, size)


@pytest.mark.parametrize(
    ("method", "dataset", "network", "megabytes"),
    [
        ("MBQuant", "cifar10", "resnet20", (0.1700, 0.3380)),
        ("MBQuant", "cifar100", "resnet20", (0.1934, 0.3614)),
        ("MBQuant", "cifar100", "vgg11", (7.00, 11.69)),
        ("MBQuant", "imagenet", "resnet18", (7.8500, 13.6287)),
        ("MBQuant", "imagenet", "resnet34", (13.0419, 24.0281)),
        ("MBQuant", "imagenet", "mobilenetv1", (6.111, 8.164)),
        ("AdaC", "cifar10", "resnet20", (0.1578, 0.2989)),
        ("AdaC", "cifar100", "resnet20", (0.1812, 0.3223)),
        ("AdaF", "cifar100", "vgg11", (6.99, 11.62)),
        ("AdaC", "imagenet", "resnet18", (7.783, 13.399)),
        ("AdaC", "imagenet", "resnet34", (12.922, 23.619)),
        ("AdaC", "imagenet", "mobilenetv1", (5.958, 7.637)),
        ("APN", "cifar10", "resnet20", (1.1009, 1.1064)),
        ("APN", "cifar100", "resnet20", (1.1243, 1.1298)),
        ("APN", "cifar100", "vgg11", (39.24, 39.26)),
        ("APN", "imagenet", "resnet18", (46.8354, 46.8738)),
        ("APN", "imagenet", "resnet34", (87.3274, 87.3955)),
        ("APN", "imagenet", "mobilenetv1", (17.102, 17.190)),
    ],
)
def test_sizes(method: str, dataset: str, network: str, megabytes: tuple[float, float]) -> None:
    """Sizes by the storage formula, to the digits given, and as published, to two digits."""
    name, options = {
        "MBQuant": ("mbquant", {"half": "published"}),
        "AdaF": ("adabits", {"quantizer": "floor"}),
        "AdaC": ("adabits", {"quantizer": "centre"}),
        "APN": ("any-precision", {}),
    }[method]
    vgg = network == "vgg11"
    for bits, expected in zip(SETS, megabytes, strict=True):
        size = _costs(dataset, network, bits, name, **options).storage_bytes
        size += _published_extras(method, network, bits)
        digits = 6e-5 if network == "resnet20" else 6e-4
        assert size / 1e6 == pytest.approx(expected, abs=0.006 if vgg else digits)
        published = published_size(dataset, network, bits, method)
        if published is None:
            assert (method, network, bits) == ("AdaC", "resnet18", (2, 4, 6, 8))
        else:
            assert size / 1e6 == pytest.approx(published, abs=0.021 if vgg else 0.0051)


def _published_extras(method: str, network: str, bits: tuple[int, ...]) -> int:
    """Bytes by which the networks behind the published sizes differ from ours."""
    if network == "vgg11":
        # Their head has two more layers, and each branch reads its own part of the stem's channels.
        head = 4 * 2 * (512 * 512 + 512)
        unread = 0 if method != "MBQuant" else (max(bits) // 2 - 1) * 64 * 128 * 9 * 2 // 8
        return head - unread
    if method != "APN" or network == "mobilenetv1":
        return 0
    # Their shortcuts are normalised (for each bit-width on ImageNet), and the stem on ImageNet.
    if network == "resnet20":
        return 8 * (32 + 64)
    return 8 * (64 + len(bits) * (128 + 256 + 512))


def test_resnet20() -> None:
    costs = _costs("cifar10", "resnet20", (2, 4, 6, 8))
    assert costs.storage_bytes == 337_960
    body, fixed = 40_370_176, 442_368 + 640
    for bits, level in costs.levels.items():
        assert level.body_macs == bits // 2 * body
        assert level.fixed_macs == fixed
        assert level.macs == bits // 2 * body + fixed
        assert level.bops == body * bits * bits + fixed * 1024


def test_resnet18_bit_operations() -> None:
    """Body, full-precision stem and head of ResNet-18 on 224x224 images, as published baselines."""
    giga = {2: 128.153, 4: 148.499, 6: 182.410, 8: 229.886}
    costs = _costs("imagenet", "resnet18", (2, 4, 6, 8))
    for bits, expected in giga.items():
        assert costs.levels[bits].bops / 1e9 == pytest.approx(expected, abs=6e-4)
        assert costs.levels[bits].body_macs == bits // 2 * 1_695_547_392
    adabits = _costs("imagenet", "resnet18", (2, 4, 6, 8), "adabits").levels
    for bits, level in adabits.items():
        assert level.bops == costs.levels[bits].bops, "the same bit operations"
        assert level.body_macs == 1_695_547_392, "in one pass"


def test_half_branches_count_what_runs() -> None:
    levels = {
        half: _costs("cifar10", "resnet20", (2, 3, 4), half=half).levels
        for half in ("published", "uniform")
    }
    whole = levels["published"][2].body_macs
    for half, share in (("published", 0.620), ("uniform", 0.4915)):
        assert levels[half][3].body_macs / whole - 1 == pytest.approx(share, abs=5e-4)
    half = _costs("imagenet", "resnet18", (2, 3, 4), half="published").levels[3]
    assert half.body_macs * 6 / 1e9 == pytest.approx(15.116, abs=6e-4)


def test_dedicated_and_hot_swap_networks() -> None:
    dedicated = _costs("cifar10", "resnet20", (4,), "dedicated")
    shared = _costs("cifar10", "resnet20", (2, 4))
    assert dedicated.levels[4] == shared.levels[4]
    weights = 269_824
    # Two branches of 2 bits; stem and head; 768 channels of each branch and the stem's; 20 ranges of
    # weights and 20 of activations for each branch.
    assert dedicated.storage_bytes == (
        weights * 4 // 8 + 4 * (432 + 650) + 8 * (2 * 768 + 16) + 8 * (40 + 40)
    )
    swapped = _costs("cifar10", "resnet20", (1, 2, 8), "hot-swap")
    assert swapped.levels[1].bops < swapped.levels[2].bops < swapped.levels[8].bops
    assert swapped.storage_bytes == (
        4 * weights + 4 * 20 * 3 * 4 + 4 * (432 + 650) + 8 * (3 * 768 + 16)
    ), "full-precision weights, and 4 gains for each convolution and level"


def test_a_level_needs_the_stems_of_its_own_branches() -> None:
    shared = _costs("cifar10", "resnet20", (2, 4, 6, 8))
    costs = _costs("cifar10", "resnet20", (2, 4, 6, 8), stem="branch")
    for bits, level in costs.levels.items():
        assert level.body_macs == shared.levels[bits].body_macs
        assert level.fixed_macs == bits // 2 * 442_368 + 640
    assert costs.storage_bytes == shared.storage_bytes + 3 * (4 * 432 + 8 * 16)


@pytest.mark.parametrize(
    ("network", "bits", "options"),
    [
        ("resnet20", (2, 4, 6, 8), {}),
        ("resnet20", (2, 3, 4), {}),
        ("resnet20", (2, 3, 4), {"half": "published"}),
        ("resnet20", (3,), {}),
        ("mobilenetv1", (2, 7), {}),
        ("resnet8", (2, 8), {"stem": "branch"}),
        ("vgg11", (2, 4), {}),
        ("mobilenetv1", (2, 3, 4), {}),
    ],
)
def test_the_exported_network_counts_the_same(
    network: str, bits: tuple[int, ...], options: dict[str, str]
) -> None:
    from export import costs as integer_costs
    from export.folding import fold

    recipe = Recipe(
        network=NetworkRecipe(network),
        method=MethodRecipe(bits=bits, **options),  # type: ignore[arg-type]
    )
    size = (32, 32)
    counted = recipe_costs(recipe, 10, size)
    trained = methods.build(recipe, tuple("0123456789"), size, (120.0,) * 3, (60.0,) * 3)
    exported = fold(trained.eval())
    assert counted.storage_bytes == integer_costs.storage_bytes(exported)
    for level in counted.levels.values():
        theirs = integer_costs.level_cost(exported, level.bits)
        assert (level.body_macs, level.fixed_macs) == (theirs.body_macs, theirs.fixed_macs)
        assert (level.macs, level.bops) == (theirs.macs, theirs.bops)
