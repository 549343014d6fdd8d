"""Runs as a user starts them: resume, errors, the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_networks import SHORT_RUN as SMALL

from train import load_run
from train.__main__ import main
from train.checkpoint import CHECKPOINT, TrainingError
from train.engine import Trainer
from train.optimizers import build_optimizers, clip_gradients, decay
from train.recipe import RecipeError, difference, load_recipe, to_toml


class _Stop(Exception):
    pass


@pytest.mark.parametrize("phase", ["pretrain", "quantised"])
def test_resumes_bit_for_bit(tmp_path: Path, phase: str) -> None:
    recipe = load_recipe("digits", SMALL)
    whole = Trainer(recipe, tmp_path / "whole")
    report = whole.run()

    def stop(progress: object, *_: object) -> None:
        if progress.phase == phase and progress.step == 3:  # type: ignore[attr-defined]
            raise _Stop

    with pytest.raises(_Stop):
        Trainer(recipe, tmp_path / "parts", stop).run()
    resumed = Trainer(recipe, tmp_path / "parts")
    assert resumed.progress.phase == phase and resumed.progress.step == 2
    assert resumed.run()["accuracy"] == report["accuracy"]
    expected = whole.network.state_dict()
    for name, value in resumed.network.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_finished_run_loads_without_its_data(tmp_path: Path) -> None:
    recipe = load_recipe("digits", SMALL)
    trainer = Trainer(recipe, tmp_path)
    trainer.run()
    loaded = load_run(tmp_path)
    assert loaded.recipe == recipe
    assert loaded.network.labels == tuple("0123456789")
    for name, value in loaded.network.state_dict().items():
        assert torch.equal(value, trainer.network.state_dict()[name]), name
    with pytest.raises(RecipeError, match="another recipe.*\n.*seed: 2 != 1"):
        Trainer(load_recipe("digits", [*SMALL, "seed=2"]), tmp_path)


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not a finished run"):
        load_run(tmp_path)


@pytest.mark.parametrize("place", ["weights", "range"])
def test_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path: Path, place: str) -> None:
    settings = [*SMALL, "pretrain.epochs=0", "train.checkpoint_minutes=1000"]
    recipe = load_recipe("digits", settings)
    trainer = Trainer(recipe, tmp_path)

    def poison(progress: object, *_: object) -> None:
        if progress.step == 2:  # type: ignore[attr-defined]
            with torch.no_grad():
                if place == "range":
                    list(trainer.network.convolutions())[1].act_upper[0] = float("nan")
                else:
                    trainer.network.classifier.weight.fill_(float("nan"))

    trainer.listener = poison
    with pytest.raises(TrainingError) as error:
        trainer.run()
    expected = {
        "weights": r"not finite at level \[2, 4, 6, 8\] in quantised epoch 1, step 3; all ranges u-l"
        r" are finite, the smallest is 0\.\d+ \(branches\.\d\.blocks\.\d\.\w+, ",
        "range": r"not finite at level \[2\] in quantised epoch 1, step 3; ranges u-l that are not"
        r" finite: branches\.0\.blocks\.0\.conv2, activations at 2 bits: nan\.",
    }
    assert re.search(expected[place], str(error.value)), error.value
    assert all(value.isfinite().all() for value in load_file(tmp_path / CHECKPOINT).values())
    assert Trainer(recipe, tmp_path).progress.step == 0


@pytest.mark.parametrize("last", [False, True])
def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, last: bool) -> None:
    """A gradient overflows while the loss is finite: in some step, or in the last, which no loss follows."""
    every_step = ["pretrain.epochs=0", "train.checkpoint_minutes=0"]
    recipe = load_recipe("digits", [*SMALL, *every_step])
    trainer = Trainer(recipe, tmp_path)
    bad = trainer.batches.steps if last else 3
    weight = trainer.network.classifier.weight

    def overflow(progress: object, *_: object) -> None:
        if progress.step == bad - 1:  # type: ignore[attr-defined]
            weight.register_hook(lambda gradient: gradient * torch.inf)

    trainer.listener = overflow
    with pytest.raises(TrainingError) as error:
        trainer.run()
    before = "epoch 2, step 1" if last else "epoch 1, step 4"
    expected = (
        rf"classifier\.weight is not finite before quantised {before}; all ranges u-l are finite"
    )
    assert re.search(expected, str(error.value)), error.value
    assert "is still good" in str(error.value)
    assert all(value.isfinite().all() for value in load_file(tmp_path / CHECKPOINT).values())
    assert Trainer(recipe, tmp_path).progress.step == bad - 1


def test_schedules() -> None:
    steps = [decay("step", epoch / 200) for epoch in (0, 99, 100, 149, 150, 199)]
    assert steps == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert [decay("cosine", share) for share in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])


def test_optimizers_of_a_recipe(tmp_path: Path) -> None:
    choices = ["train.optimizer=adam", "train.norm_decay=false", "train.schedule=step"]
    trainer = Trainer(load_recipe("digits", [*SMALL, "pretrain.epochs=0", *choices]), tmp_path)
    weights = trainer.optimizers["weights"]
    assert isinstance(weights, torch.optim.Adam)
    decayed, others = weights.param_groups
    assert decayed["weight_decay"] == 1e-4 and others["weight_decay"] == 0
    dimensions = [{p.ndim for p in group["params"]} for group in (decayed, others)]
    assert dimensions == [{2, 4}, {1}]
    ranges = trainer.optimizers["ranges"].param_groups[0]["params"]
    everything = [*decayed["params"], *others["params"], *ranges]
    assert {id(p) for p in everything} == {id(p) for p in trainer.network.parameters()}
    assert len(everything) == len(set(map(id, everything)))
    trainer.run()
    assert {"exp_avg", "exp_avg_sq"} <= weights.state[trainer.network.classifier.weight].keys()

    nesterov = load_recipe("digits", [*SMALL, "train.nesterov=true"])
    optimizer = build_optimizers(nesterov, trainer.network)["weights"]
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.param_groups[0]["nesterov"]
    for wrong in ("train.momentum=0.0", "train.optimizer=adam"):
        recipe = load_recipe("digits", [*SMALL, "train.nesterov=true", wrong])
        with pytest.raises(RecipeError, match="nesterov: needs"):
            Trainer(recipe, tmp_path / "wrong")


def test_gradients_are_clipped_to_a_norm(tmp_path: Path) -> None:
    """A step of plain descent is then no longer than rate times norm; pretraining is not clipped."""
    plain = ["train.momentum=0.0", "train.weight_decay=0.0", "train.lr=0.5"]
    recipe = load_recipe("digits", [*SMALL, *plain, "train.clip_norm=0.01"])
    moved: dict[str, float] = {}
    last: tuple[str, list[torch.Tensor]] = ("", [])

    def measure(progress: object, *_: object) -> None:
        nonlocal last
        phase: str = progress.phase  # type: ignore[attr-defined]
        now = [p.detach().clone() for p in trainer.network.model_parameters()]
        if phase == last[0]:
            step = torch.stack([(a - b).norm() for a, b in zip(now, last[1], strict=True)]).norm()
            moved[phase] = max(moved.get(phase, 0.0), float(step))
        last = phase, now

    trainer = Trainer(recipe, tmp_path, measure)
    trainer.run()
    assert moved["quantised"] <= 0.5 * 0.01 * 1.001
    assert moved["pretrain"] > 0.01

    for parameter in trainer.network.model_parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    before = next(iter(trainer.network.model_parameters())).grad
    clip_gradients(trainer.network, 0.0)
    assert before is not None and bool((before == 2.0).all())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "train.epoch: unknown key; did you mean 'epochs'?"),
        ("trian.epochs=3", "trian: unknown key; did you mean 'train'?"),
        ("network.stem_bits=4", "network.stem_bits: expected one of 8, 16 (got 4)"),
        ("train.epochs=many", "train.epochs: expected an integer"),
        ("train.lr=-1", "train.lr: expected a value from 0 to 10"),
        (
            "data.dataset=cifar20",
            "expected one of digits, cifar10, cifar100, images, imagenet; did you mean 'cifar",
        ),
        ("method.bits=[2,9]", "expected a list of different levels"),
        ("train.compile=1", "expected true or false"),
        ("seed", "expected key=value"),
        ("network=3", "network: expected a table"),
    ],
)
def test_wrong_recipes_are_explained(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe("digits", [override])
    assert message in str(error.value)


def test_recipes_round_trip(tmp_path: Path) -> None:
    for name in ("digits", "images", "cifar10-resnet20"):
        recipe = load_recipe(name)
        (tmp_path / "r.toml").write_text(to_toml(recipe))
        assert load_recipe(tmp_path / "r.toml") == recipe
        assert difference(recipe, recipe) == []
    moved = load_recipe(
        "cifar10-resnet20",
        ["data.root=/elsewhere", "pretrain.init=/mnt/resnet20-cifar10-fp32.safetensors"],
    )
    assert moved.fingerprint() == recipe.fingerprint()
    assert load_recipe("cifar10-resnet20", ["seed=9"]).fingerprint() != recipe.fingerprint()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [part for pair in SMALL for part in ("--set", pair)]
    assert main(["digits", "--out", str(tmp_path / "run"), *overrides]) == 0
    printed = capsys.readouterr()
    assert "2 bit" in printed.out and "accuracy" in printed.out
    assert "quantised epoch 1/1" in printed.err
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000
    assert main(["nothing.toml"]) == 2
    assert "no such recipe" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "nothing")]) == 2
    with pytest.raises(SystemExit, match="0"):
        main(["bench", "--help"])
    assert "python -m train bench" in capsys.readouterr().out
