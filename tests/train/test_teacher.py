"""An external teacher is asked what it knows before it teaches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_networks import digits

from train import load_run
from train.__main__ import main
from train.checkpoint import CHECKPOINT
from train.data import load_dataset
from train.engine import Trainer
from train.evaluation import evaluate, evaluate_full_precision
from train.recipe import RecipeError, load_recipe
from train.teacher import required

BATCH = [
    "network.name=resnet8",
    "method.bits=[2, 4]",
    "data.batch=64",
    "train.checkpoint_minutes=0",
    "train.reestimate_batches=4",
]
SHORT = [*BATCH, "data.batch=256", "pretrain.epochs=1", "train.epochs=1"]


def teacher_run(folder: Path, *settings: str) -> str:
    """Train a run that may teach; the setting that names it."""
    Trainer(load_recipe("digits", [*BATCH, *settings]), folder).run()
    return f"method.teacher_run={folder}"


def test_a_teacher_that_guesses_is_refused(tmp_path: Path) -> None:
    """A network that was never trained, as a run without full-precision epochs is."""
    setting = teacher_run(tmp_path / "guess", "pretrain.epochs=0", "train.epochs=0")
    with pytest.raises(RecipeError) as error:
        Trainer(load_recipe("digits", [*SHORT, setting]), tmp_path / "run")
    assert str(error.value).startswith(f"method.teacher_run: {tmp_path / 'guess'} answers ")
    assert "full precision" in str(error.value)
    assert "give it pretrain.epochs" in str(error.value)
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_a_teacher_below_its_pretrained_student_is_refused(tmp_path: Path) -> None:
    setting = teacher_run(
        tmp_path / "weak", "pretrain.epochs=1", "pretrain.lr=0.01", "train.epochs=0"
    )
    recipe = load_recipe("digits", [*BATCH, "pretrain.epochs=3", "train.epochs=1", setting])
    trainer = Trainer(recipe, tmp_path / "run")
    assert trainer.teacher is not None
    with pytest.raises(RecipeError) as error:
        trainer.run()
    student = float(trainer.progress.history[-1]["accuracy2"])
    assert student > trainer.teacher.accuracy + 0.05
    assert f"{trainer.teacher.accuracy:.2%}" in str(error.value)
    assert f"{student:.2%}" in str(error.value)
    # With a better teacher in the same place the same command goes on.
    assert (tmp_path / "run" / CHECKPOINT).exists()
    assert Trainer(recipe, tmp_path / "run").progress.phase == "pretrain"


def test_what_teaches_is_what_the_teacher_last_trained(tmp_path: Path) -> None:
    """Full precision without quantised epochs, else the highest level: after quantised training the
    statistics of the full-precision normalisations belong to weights that are gone."""
    images, _ = digits(16)
    test_set = load_dataset(load_recipe("digits").data, "test")
    for name, epochs, source in (("full", 0, "full precision"), ("levels", 1, "4 bits")):
        setting = teacher_run(tmp_path / name, "pretrain.epochs=2", f"train.epochs={epochs}")
        trainer = Trainer(load_recipe("digits", [*SHORT, setting]), tmp_path / f"{name}-run")
        loaded = load_run(tmp_path / name).network
        with torch.no_grad():
            features = loaded.stem(images)
            if epochs:
                logits, accuracy = loaded.classify(features, 4), evaluate(loaded, test_set)[4]
            else:
                logits = loaded.classify_full_precision(features)[4]
                accuracy = evaluate_full_precision(loaded, test_set)[4]
        assert trainer.teacher is not None
        torch.testing.assert_close(trainer.teacher.probabilities(images), logits.softmax(1))
        assert trainer.teacher.accuracy == accuracy > 0.8
        expected = {"run": str(tmp_path / name), "network": source, "accuracy": accuracy}
        assert trainer.run()["teacher"] == expected
        stored = json.loads((tmp_path / f"{name}-run" / "report.json").read_text())
        assert stored["teacher"] == expected


def test_the_command_says_what_the_teacher_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = teacher_run(tmp_path / "good", "pretrain.epochs=3", "train.epochs=0")
    overrides = [part for pair in (*SHORT, setting) for part in ("--set", pair)]
    assert main(["digits", "--out", str(tmp_path / "run"), *overrides]) == 0
    accuracy = json.loads((tmp_path / "run" / "report.json").read_text())["teacher"]["accuracy"]
    assert f"teacher {tmp_path / 'good'}: {accuracy:.2%} on the test set, full precision" in (
        capsys.readouterr().err
    )


def test_what_a_teacher_has_to_know() -> None:
    """Three standard errors of the test set beyond guessing, or short of the student."""
    assert required(0.1, 0.1, 5000) == pytest.approx(0.1 + 3 * (0.09 / 5000) ** 0.5)
    assert required(0.1, 0.9156, 5000) == pytest.approx(
        0.9156 - 3 * (0.9156 * 0.0844 / 5000) ** 0.5
    )
    assert required(0.5, 0.5, 4) == 0.75, "half way to certainty where a test set says little"
