"""What a GPU needs of a step, as far as a machine without one can tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import SHORT_RUN, build, digits
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from train import bench, methods
from train.accelerator import same_gradients
from train.engine import Trainer
from train.recipe import MethodRecipe, RecipeError, load_recipe

METHODS = {
    "mbquant": MethodRecipe(),
    "mbquant-234": MethodRecipe(bits=(2, 3, 4)),
    "filter-ranges": MethodRecipe(ranges="filter"),
    "dedicated": MethodRecipe("dedicated", (2,)),
    "any-precision": MethodRecipe("any-precision"),
    "adabits": MethodRecipe("adabits"),
    "hot-swap": MethodRecipe("hot-swap", (1, 2, 8)),
    "hot-swap-random": MethodRecipe("hot-swap", (1, 8), bands="random"),
}


class _OnOneDevice(TorchDispatchMode):
    """Refuses every operator that reads or makes a tensor elsewhere than on ``meta``.

    That device has no values: what asks for one fails by itself.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            assert not isinstance(leaf, Tensor) or leaf.device.type == "meta", func
        return result


@pytest.mark.parametrize("name", METHODS)
def test_a_step_stays_on_its_device(name: str) -> None:
    """A CUDA graph cannot record a value that goes to the host or comes from it."""
    images, labels = digits(8)
    recipe = METHODS[name]
    net = build(recipe)
    methods.calibrate(net, images, recipe.weight_sigmas)
    net.to("meta")
    guide = torch.empty(8, 10, device="meta")
    batch = images.to("meta"), labels.to("meta")
    step: Callable[..., dict[int, Tensor]]
    for step in (methods.backward_full_precision, methods.backward):
        net.zero_grad()
        extra = {"guide": guide} if step is methods.backward else {}
        with _OnOneDevice():
            losses = step(net, *batch, methods.find(recipe), torch.bfloat16, **extra)
            methods.guard(net)
        assert set(losses) == set(net.bits)
        assert net.classifier.weight.grad is not None
        assert net.stem.conv.weight.grad is not None


def test_without_a_gpu_recordings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    recipe = load_recipe("digits", [*SHORT_RUN, "train.cuda_graph=true"])
    with pytest.raises(
        RecipeError, match=r"train.cuda_graph: needs one .* \(here: 1 processes on cpu\)"
    ):
        Trainer(recipe, tmp_path)
    assert bench.main(["digits", "--set", "train.cuda_graph=true"]) == 2
    assert "train.cuda_graph: needs one" in capsys.readouterr().err


def test_a_recording_may_be_left_out_in_the_middle_of_a_run() -> None:
    plain, recorded = (
        load_recipe("digits", [f"train.cuda_graph={on}"]) for on in ("false", "true")
    )
    assert plain.fingerprint() == recorded.fingerprint()


def test_gradients_that_differ_are_found() -> None:
    gradient = torch.tensor([3.0, 4.0])
    same: list[Tensor | None] = [gradient, None]
    assert same_gradients(same, [gradient.clone(), None])
    assert same_gradients(same, [gradient * 1.0005, None])
    assert not same_gradients(same, [gradient * 1.01, None])
    assert not same_gradients(same, [None, gradient])
    assert not same_gradients(same, [gradient * float("nan"), None])
