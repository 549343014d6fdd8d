"""Finding models by name, by the beginning of a name, and by path."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_app import models
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
