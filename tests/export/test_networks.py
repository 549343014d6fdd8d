"""Every network that can be trained in branches: folded, costed, lowered, run on every kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import native_ops
from export import checks, costs, folding, integer, program
from export.integer import IntegerNetworkError
from train import methods
from train.branches import MultiBranchNet
from train.costs import recipe_costs
from train.recipe import MethodRecipe, NetworkRecipe, Recipe

CLASSES = 7


@dataclass(frozen=True)
class Case:
    network: str
    bits: tuple[int, ...]
    size: int
    options: tuple[tuple[str, Any], ...] = field(default=())

    @property
    def recipe(self) -> Recipe:
        method = MethodRecipe(bits=self.bits, **dict(self.options))
        return Recipe(network=NetworkRecipe(self.network), method=method)

    def __str__(self) -> str:
        options = "-".join(str(value) for _, value in self.options)
        return f"{self.network}-{''.join(map(str, self.bits))}{options and '-' + options}"


PUBLISHED = (("half", "published"), ("join", "sum"), ("ranges", "filter"))
CASES = [
    Case("resnet8", (2, 4, 6, 8), 16),
    Case("resnet8", (2, 3, 4, 5, 7), 16, PUBLISHED),
    Case("resnet8", (2, 3, 4), 16, (("stem", "branch"),)),
    Case("resnet8", (6,), 16, (("name", "dedicated"),)),
    Case("resnet20", (2, 3, 4), 16),
    Case("resnet18", (3,), 32),
    Case("resnet34", (2,), 32),
    Case("vgg11", (3,), 32),
    Case("mobilenetv1", (2, 3, 4), 32),
    Case("mobilenetv1", (4,), 64, (("ranges", "filter"),)),
]
LOWERED = [
    Case("resnet8", (3,), 16, (*PUBLISHED, ("stem", "branch"))),
    Case("resnet18", (2,), 32),
    Case("vgg11", (3,), 32),
    Case("mobilenetv1", (3,), 32),
]
THREADED = [
    Case("resnet8", (2, 4, 6, 8), 16),
    Case("resnet8", (2, 3, 4, 5, 7), 16, PUBLISHED),
    Case("resnet8", (2, 3, 4), 16, (("stem", "branch"),)),
    Case("resnet20", (2, 3, 4), 16),
    Case("mobilenetv1", (2, 3, 4), 32),
]


def images(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, size, size, 3), dtype=np.uint8)


@cache
def trained(case: Case) -> MultiBranchNet:
    """Calibrated, with norms as after training: statistics of data, scales of either sign."""
    size = case.size
    net = methods.build(
        case.recipe, tuple(map(str, range(CLASSES))), (size, size), (120.0,) * 3, (60.0,) * 3
    )
    source = torch.Generator().manual_seed(1)
    x = torch.from_numpy(images(size)).permute(0, 3, 1, 2)
    methods.calibrate(net, x, 1.494)
    net.train()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # statistics of all batches so far: of this one
                module.weight.uniform_(0.5, 1.5, generator=source)
                module.weight[::5] *= -1
                module.bias.uniform_(-0.3, 0.5, generator=source)
        for conv in net.convolutions():
            conv.act_lower += 0.1 * (torch.rand(conv.act_lower.shape, generator=source) - 0.5)
        for bits in net.bits:
            net(x, bits)
    return net.eval()


@cache
def folded(case: Case) -> integer.IntegerNetwork:
    return folding.fold(trained(case))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_oracle_computes_what_was_trained(case: Case) -> None:
    """Now and then a code falls to the other side and is amplified: medians are tight."""
    pixels = images(case.size)
    for bits in case.bits:
        with torch.inference_mode():
            expected = trained(case)(torch.from_numpy(pixels).permute(0, 3, 1, 2), bits).numpy()
        found = integer.run(folded(case), bits, pixels)
        assert np.unique(expected.round(3), axis=0).shape[0] > 4, "logits that ignore the image"
        difference = np.abs(found - expected).max(axis=1) / np.abs(expected).max(axis=1)
        assert np.median(difference) < 2e-3, bits
        assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.75, bits


@pytest.mark.parametrize("case", CASES, ids=str)
def test_costs_are_those_of_training(case: Case) -> None:
    """Counted there while PyTorch runs the network, here from shapes."""
    counted = recipe_costs(case.recipe, CLASSES, (case.size, case.size))
    for bits in case.bits:
        ours, theirs = costs.level_cost(folded(case), bits), counted.levels[bits]
        assert ours.body_macs == theirs.body_macs
        # Training runs the stems of all branches at once, a device those that a level needs.
        if ("stem", "branch") not in case.options:
            assert (ours.fixed_macs, ours.bops) == (theirs.fixed_macs, theirs.bops)
    if case.bits in ((2, 3, 4), (2, 4, 6, 8)):
        assert costs.storage_bytes(folded(case)) == counted.storage_bytes


def lower(case: Case, path: Path) -> Path:
    network = folded(case)
    about = {
        "levels": {str(bits): {} for bits in case.bits},
        "labels": network.labels,
        "input": {"height": case.size, "width": case.size},
    }
    path.write_bytes(program.lower(network, about))
    return path


@pytest.mark.parametrize("case", THREADED, ids=str)
def test_threads_change_no_bit(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they share every layer or run branches side by side."""
    path = lower(case, tmp_path / "model.pte")
    pixels = images(case.size)[:2]
    beside = set()
    for threads, split in product((1, 2, 3), ("tiles", "branches")):
        monkeypatch.setenv("EDGE_NATIVE_SPLIT", split)
        with native_ops.Program.open(path, threads) as model:
            for bits in case.bits:
                found = [model.run(bits, image) for image in pixels]
                np.testing.assert_array_equal(found, integer.run(folded(case), bits, pixels))
                if any(layer.beside for layer in model.profile(bits, pixels[0])):
                    beside.add((threads, split))
    assert beside == {(2, "branches"), (3, "branches")}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [lower(case, folder / f"{case}.pte") for case in LOWERED]


RUN = """
import sys
import numpy as np
from native_ops import Program, isa_selected

device, *paths = sys.argv[1:]
print(isa_selected())
for path in paths:
    with Program.open(path, threads=2, device=device) as model:
        assert model.device.startswith(device)
        pixels = np.random.default_rng(0).integers(0, 256, (8, *model.input_shape), dtype=np.uint8)
        for image in pixels[:2]:
            print(model.run(model.levels[0], image).tobytes().hex())
"""


def require_the_oracles_logits(isa: str, device: str, files: list[Path]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", RUN, device, *map(str, files)],
        env={**os.environ, "EDGE_NATIVE_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    selected, *found = result.stdout.split()
    assert selected == isa
    expected = [
        logits.tobytes().hex()
        for case in LOWERED
        for logits in integer.run(folded(case), case.bits[0], images(case.size)[:2])
    ]
    assert found == expected


@pytest.mark.parametrize("isa", native_ops.isa_available())
def test_files_give_the_oracles_logits_bit_for_bit(isa: str, files: list[Path]) -> None:
    require_the_oracles_logits(isa, "cpu", files)


@pytest.mark.vulkan
@pytest.mark.usefixtures("vulkan")
@pytest.mark.parametrize("product", ["plain", "packed"])
def test_a_gpu_gives_the_oracles_logits_bit_for_bit(
    product: str, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_VULKAN_PRODUCT", product)
    require_the_oracles_logits("portable", "vulkan", files)


def test_a_half_branch_is_the_start_of_the_branch_and_stored_once_more() -> None:
    network = folded(Case("mobilenetv1", (2, 3, 4), 32))
    codes = {
        (branch, name): conv.codes
        for level in network.levels.values()
        for branch, name, conv in level.convolutions()
    }
    halves = [key for key in codes if key[1].startswith(integer.HALF)]
    assert len(halves) == 26
    repeated = 0
    packed = program.pack_weights(network)
    for branch, name in halves:
        half, whole = codes[branch, name], codes[branch, name.removeprefix(integer.HALF)]
        np.testing.assert_array_equal(half, whole[: half.shape[0], :, :, : half.shape[3]])
        repeated += packed.blobs[branch, name].numel() - 64
    assert packed.repeated_bytes == repeated > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "any-precision", "bits": (2, 4)}, "AnyPrecisionConv in place of 2-bit branches"),
        ({"name": "adabits", "bits": (2, 4)}, "CentreConv in place of 2-bit branches"),
        ({"name": "hot-swap", "bits": (2, 4)}, "HotSwapConv in place of 2-bit branches"),
        ({"bits": (2, 4), "shuffle": True}, "exchange channels"),
    ],
)
def test_what_has_no_separate_branches_is_refused(options: dict[str, Any], message: str) -> None:
    recipe = Recipe(network=NetworkRecipe("resnet8"), method=MethodRecipe(**options))
    net = methods.build(recipe, ("a", "b"), (8, 8), (120.0,) * 3, (60.0,) * 3)
    with pytest.raises(IntegerNetworkError, match=message):
        folding.fold(net.eval())


def _with_step(case: Case, index: int, **changes: Any) -> integer.IntegerNetwork:
    network = folded(case)
    level = network.levels[case.bits[0]]
    steps = list(level.bodies[0])
    steps[index] = replace(steps[index], **changes)
    changed = replace(level, bodies=(tuple(steps), *level.bodies[1:]))
    return replace(network, levels={**network.levels, case.bits[0]: changed})


def test_steps_that_do_not_fit_together_are_refused() -> None:
    mobile, residual = Case("mobilenetv1", (2, 3, 4), 32), Case("resnet8", (2, 4, 6, 8), 16)
    layers = folded(mobile).levels[2].bodies[0]
    block = folded(residual).levels[2].bodies[0][1]
    assert isinstance(block, integer.Block) and block.shortcut is not None
    quantizer = layers[0].quantizer
    narrow = replace(block.conv1, codes=block.conv1.codes[..., :-1])
    wide = replace(layers[0].conv, codes=np.zeros((32, 7, 7, 1), np.uint8))
    for network, message in [
        (_with_step(mobile, 1, limits=None), "layer3: reads codes"),
        (_with_step(mobile, 0, quantizer=None), "layer1: reads codes"),
        (_with_step(mobile, 2, quantizer=quantizer), "layer3: reads the stream"),
        (_with_step(mobile, 3, conv=layers[1].conv), "layer4: the convolution takes 32 channels"),
        (_with_step(mobile, -1, limits=(0, 3)), "layer26: the last step has to write the stream"),
        (_with_step(mobile, 0, limits=None), "layer1: a depthwise convolution writes codes"),
        (_with_step(mobile, 0, pool=integer.Pool(2, 2, 2)), "layer1: .* windows without a pixel"),
        (_with_step(mobile, 0, conv=wide), "layer1.conv: a depthwise convolution takes one input"),
        (_with_step(mobile, 2, limits=(0, 4)), r"layer3: requantisation to 0\.\.4"),
        (_with_step(residual, 1, conv1=narrow), "block2: conv1 takes 15 channels, there are 16"),
        (_with_step(residual, 1, shortcut=None), "block2: the sum takes 32 channels, there are 16"),
    ]:
        with pytest.raises(IntegerNetworkError, match=message):
            checks.check(network)
