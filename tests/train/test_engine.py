"""Runs as a user starts them: resume, errors, the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from train import load_run
from train.__main__ import main
from train.engine import Trainer, TrainingError
from train.recipe import RecipeError, difference, load_recipe, to_toml

SMALL = [
    "network.name=resnet8",
    "pretrain.epochs=1",
    "train.epochs=1",
    "data.batch=256",
    "train.reestimate_batches=2",
    "train.checkpoint_minutes=0",
]


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


def test_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    recipe = load_recipe("digits", [*SMALL, "pretrain.epochs=0", "train.lr=10", "train.epochs=5"])
    trainer = Trainer(recipe, tmp_path)

    def poison(progress: object, *_: object) -> None:
        if progress.step == 2:  # type: ignore[attr-defined]
            with torch.no_grad():
                trainer.network.classifier.weight.fill_(float("nan"))

    trainer.listener = poison
    with pytest.raises(TrainingError, match=r"not finite at level \[2, 4, 6, 8\]|not finite"):
        trainer.run()
    assert (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "train.epoch: unknown key; did you mean 'epochs'?"),
        ("trian.epochs=3", "trian: unknown key; did you mean 'train'?"),
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
