"""Published figures: looked up by what a run is, complete, and attributed."""

from __future__ import annotations

import pytest

from train.published import ORDER, column, published, published_size, published_table
from train.recipe import MethodRecipe


def test_figures_of_a_set_of_bit_widths() -> None:
    figures = published("cifar10", "resnet20", (2, 4, 6, 8), "MBQuant")
    assert figures == {8: 94.00, 6: 93.61, 4: 93.22, 2: 91.24}
    assert published("cifar10", "resnet20", (4, 3, 2), "MBQuant")[2] == 91.60
    assert published("imagenet", "resnet34", (4, 3, 2), "ABN") == {4: 73.5, 3: 73.0, 2: 70.3}
    assert published_size("imagenet", "resnet18", (2, 4, 6, 8), "MBQuant") == 13.63


def test_networks_of_one_bit_width_belong_to_every_set() -> None:
    assert published("cifar100", "resnet20", (2,), "Ind.") == {2: 65.48}
    assert published("cifar100", "resnet20", (3, 8), "Ind.") == {3: 68.17, 8: 70.01}
    assert published("cifar100", "resnet20", (2,), "MBQuant") == {}


def test_what_was_not_published_is_not_invented() -> None:
    assert published("cifar10", "resnet20", (2, 4), "MBQuant") == {}
    assert published("digits", "resnet8", (2, 4, 6, 8), "MBQuant") == {}
    assert published("imagenet", "mobilenetv1", (2, 3, 4), "AdaF") == {}
    assert published_table("cifar10", "resnet18", (2, 3, 4)) is None
    assert published_size("cifar10", "resnet20", (2, 4, 6, 8), "Ind.") is None
    serial = published("cifar100", "resnet20", (2, 4, 6, 8), "MBQuant, serial")
    assert serial == {2: 64.95}, "the others are in a figure only"


@pytest.mark.parametrize(
    ("dataset", "network"),
    [
        ("cifar10", "resnet20"),
        ("cifar100", "resnet20"),
        ("cifar100", "vgg11"),
        ("imagenet", "resnet18"),
        ("imagenet", "resnet34"),
        ("imagenet", "mobilenetv1"),
    ],
)
@pytest.mark.parametrize("bits", [(2, 3, 4), (2, 4, 6, 8)])
def test_every_table_is_whole(dataset: str, network: str, bits: tuple[int, ...]) -> None:
    table = published_table(dataset, network, bits)
    assert table is not None and table.source
    assert {"Ind.", "APN", "MBQuant"} <= set(table.percent)
    for method, figures in table.percent.items():
        assert method.partition(",")[0] in ORDER
        assert set(figures) <= set(bits) and all(1 < value < 100 for value in figures.values())
        if "," not in method:
            assert set(figures) == set(bits), method
    assert set(table.megabytes) <= set(table.percent)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "MBQuant"),
        ({"distillation": False}, "MBQuant, no distillation"),
        ({"selection": "serial", "teacher": "none"}, "MBQuant, serial, no distillation"),
        ({"selection": "serial", "bits": (2, 3, 4)}, "MBQuant"),
        ({"name": "adabits"}, "AdaC"),
        ({"name": "adabits", "quantizer": "floor"}, "AdaF"),
        ({"name": "any-precision"}, "APN"),
        ({"name": "dedicated", "bits": (2,)}, "Ind."),
        ({"name": "hot-swap", "bits": (1, 2)}, "Hot-swap"),
        ({"name": "hot-swap", "bits": (1, 2), "bands": "fixed"}, "Hot-swap, gains fixed at 1"),
    ],
)
def test_column_of_a_recipe(options: dict[str, object], expected: str) -> None:
    assert column(MethodRecipe(**options)) == expected  # type: ignore[arg-type]


def test_hot_swap_is_compared_with_what_others_listed_for_it() -> None:
    figures = published("imagenet", "resnet18", range(1, 9), "Hot-swap")
    assert figures == {8: 70.40, 6: 70.30, 4: 70.20, 2: 64.90}
