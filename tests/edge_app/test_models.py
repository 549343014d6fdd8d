"""Finding models by name, by the beginning of a name, and by path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import native_ops
from edge_app import inspection, models
from edge_app.errors import EXIT_MODEL, EXIT_USAGE, AppError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("cifar10-resnet20.pte", "digits.pte", "digits-large.pte", "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


def test_installed_models_are_the_files_with_the_suffix(directory: Path) -> None:
    assert list(models.installed(directory)) == ["cifar10-resnet20", "digits", "digits-large"]


def test_a_name_a_prefix_and_a_path(directory: Path) -> None:
    assert models.find("cifar10", directory) == directory / "cifar10-resnet20.pte"
    assert models.find("digits-l", directory) == directory / "digits-large.pte"
    # A whole name wins over being the beginning of another.
    assert models.find("digits", directory) == directory / "digits.pte"
    path = directory / "digits.pte"
    assert models.find(str(path), Path("/nowhere")) == path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dig", "may be digits or digits-large"),
        ("digist", "did you mean digits?"),
        ("vgg", "one of: cifar10-resnet20, digits, digits-large"),
        ("absent.pte", "absent.pte: no such file"),
        ("./digits", "digits: no such file"),
        ("/", "/: is a directory"),
    ],
)
def test_what_cannot_be_found_names_what_there_is(directory: Path, name: str, message: str) -> None:
    with pytest.raises(AppError) as raised:
        models.find(name, directory)
    assert message in raised.value.message
    assert raised.value.exit_code == EXIT_MODEL


def test_without_models_the_message_asks_for_a_path(tmp_path: Path) -> None:
    with pytest.raises(AppError, match="no model is installed"):
        models.find("digits", tmp_path)


def test_the_shipped_model_names_its_branches() -> None:
    with models.open_model("digits") as program:
        branches = models.branches_of(program)
        assert tuple(branches) == program.levels
        assert branches[2] == (1,)
        assert branches[8] == (1, 2, 3, 4)


def test_damaged_models_and_impossible_thread_counts(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pte"
    contents = bytearray(models.find("digits").read_bytes())
    contents[len(contents) // 2] ^= 1
    damaged.write_bytes(contents)
    with pytest.raises(AppError) as raised:
        models.open_model(str(damaged))
    assert raised.value.exit_code == EXIT_MODEL
    assert raised.value.message.startswith(str(damaged))
    with pytest.raises(AppError) as raised:
        models.open_model("digits", threads=0)
    assert raised.value.exit_code == EXIT_USAGE


def test_kernels_of_every_layer_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    inspection.print_model("digits", kernels=True)
    printed = capsys.readouterr().out
    assert all(f"{bits} bits" in printed for bits in (2, 4, 6, 8))
    assert "stem3x3" in printed and "conv3x3" in printed and "head" in printed
    assert native_ops.isa_selected() in printed


def test_how_threads_share_a_level_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("branches", "tiles"):
        monkeypatch.setenv("EDGE_NATIVE_SPLIT", split)
        inspection.print_model("digits", kernels=True, threads=2)
        printed = capsys.readouterr().out
        assert ("beside" in printed) == (split == "branches")


def test_little_memory_keeps_weights_packed() -> None:
    held = {}
    for memory in models.MEMORY:
        with models.open_model("cifar10-resnet20", memory=memory) as model:
            layers = model.profile(2, np.zeros(model.input_shape, dtype=np.uint8))
            held[memory] = sum(layer.weight_bytes for layer in layers)
    assert held["low"] < 0.5 * held["normal"]
    with pytest.raises(AppError, match="--memory tiny: choose normal or low") as caught:
        models.open_model("digits", memory="tiny")
    assert caught.value.exit_code == EXIT_USAGE
