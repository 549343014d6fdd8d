"""From a trained run to a verified file, and what has to stop a file from getting its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

import native_ops
from export import folding, integer, program, verification
from export.__main__ import app
from export.verification import LevelAccuracy, VerificationError
from native_ops import Program
from train import data, evaluate, load_run
from train.data import load_dataset
from train.engine import Trainer
from train.images import Images, Labels
from train.recipe import load_recipe

SMALL = [
    "network.name=resnet8",
    "pretrain.epochs=1",
    "train.epochs=2",
    "train.reestimate_batches=4",
    "method.bits=[2,4]",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    Trainer(load_recipe("digits", SMALL), folder).run()
    return folder


def _export(run: Path, output: Path, *options: str) -> Result:
    return CliRunner().invoke(app, [str(run), "-o", str(output), *options])


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    output = tmp_path_factory.mktemp("out") / "model.pte"
    return output, _export(run, output, "--name", "small")


def test_the_file_computes_what_was_trained(run: Path, exported: tuple[Path, Result]) -> None:
    path, result = exported
    assert result.exit_code == 0, result.output
    loaded = load_run(run)
    dataset = load_dataset(loaded.recipe.data, "test")
    network = folding.fold(loaded.network)
    trained = evaluate(loaded.network, dataset)
    with Program.open(path) as opened:
        assert opened.levels == (2, 4)
        for bits in opened.levels:
            found = np.stack([opened.run(bits, image) for image in dataset.images])
            oracle = integer.run(network, bits, dataset.images)
            np.testing.assert_allclose(found, oracle, rtol=1e-4, atol=1e-4)
            accuracy = float((found.argmax(1) == dataset.labels).mean())
            assert opened.metadata["levels"][str(bits)]["accuracy"] == accuracy
            assert accuracy == pytest.approx(trained[bits], abs=1.01 / len(dataset.labels))
            assert accuracy > 0.3


def test_metadata_tell_where_the_model_comes_from(run: Path, exported: tuple[Path, Result]) -> None:
    report = json.loads((run / "report.json").read_text())
    with Program.open(exported[0]) as opened:
        about = opened.metadata
        assert opened.labels == tuple("0123456789")
        assert opened.input_shape == (8, 8, 3)
    assert about["name"] == "small"
    assert about["levels"]["4"]["branches"] == [1, 2]
    assert about["levels"]["4"]["macs"] > about["levels"]["2"]["macs"] > 100_000
    assert (about["dataset"], about["test_images"]) == ("digits held-out (360)", 360)
    for key in ("recipe_sha256", "commit", "network", "method"):
        assert about[key] == report[key]
    weights = {
        (branch, name): conv.codes.size // 4
        for level in folding.fold(load_run(run).network).levels.values()
        for branch, name, conv in level.convolutions()
    }
    assert about["weights_bytes"] == sum(weights.values())
    assert str(run) not in json.dumps(about)


def test_both_accuracies_are_printed_and_nothing_is_left_behind(
    exported: tuple[Path, Result],
) -> None:
    path, result = exported
    for text in ("trained", ".pte", "changed", "published formula", "verified"):
        assert text in result.stdout
    assert [file.name for file in path.parent.iterdir()] == ["model.pte"]


def test_a_large_test_set_is_streamed_and_sampled(
    run: Path, exported: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The held-out digits as files, each read when it is needed: never all of them at once."""
    digits = load_dataset(load_run(run).recipe.data, "test")
    for number, (image, label) in enumerate(zip(digits.images, digits.labels, strict=True)):
        for split in ("train", "test"):
            folder = tmp_path / "photos" / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            if split == "test" or not any(folder.iterdir()):
                Image.fromarray(image).save(folder / f"{number:03}.png")
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    _edit(copied / "recipe.toml", '"digits"\nroot = ""\nsize = 32', '"images"\nroot = ""\nsize = 8')
    _edit(copied / "recipe.toml", "workers = 4", "workers = 0")
    monkeypatch.setattr(data, "STREAM_SIZE", 4)
    monkeypatch.setattr(data, "STREAM_BYTES", 0)
    largest = []
    read = data.StreamedDataset.batches

    def watched(self: data.StreamedDataset, size: int) -> Iterator[tuple[Images, Labels]]:
        for images, labels in read(self, size):
            largest.append(len(images))
            yield images, labels

    monkeypatch.setattr(data.StreamedDataset, "batches", watched)
    monkeypatch.delattr(data.MemoryDataset, "batches")  # which the held-out set would need
    path, note = tmp_path / "model.pte", "top-1, measured by running this program on "
    for options, images, text in (
        ((), 360, "every image of the test set"),
        (("--images", "90"), 90, "90 of 360 images of the test set, evenly spread"),
    ):
        result = _export(copied, path, "--data", str(tmp_path / "photos"), *options)
        assert result.exit_code == 0, result.output
        with Program.open(path) as opened, Program.open(exported[0]) as expected:
            about, memory = opened.metadata, expected.metadata
        assert (about["test_images"], about["accuracy_note"]) == (images, note + text)
        for bits, level in about["levels"].items():
            whole = memory["levels"][bits]["accuracy"]
            assert level["accuracy"] == pytest.approx(whole, abs=0.0 if images == 360 else 0.15)
    assert max(largest) == 250, "a batch at a time"
    assert "90 images of photos held-out (360)" in " ".join(result.stdout.split())


@pytest.mark.vulkan
def test_a_file_for_a_gpu_proves_itself_there(
    run: Path, tmp_path: Path, vulkan: native_ops.Device
) -> None:
    path = tmp_path / "model-vulkan.pte"
    result = _export(run, path, "--target", "vulkan")
    assert result.exit_code == 0, result.output
    assert f"also on vulkan:{vulkan.index} ({vulkan.name})" in result.stdout
    with Program.open(path, device="vulkan") as gpu, Program.open(path) as cpu:
        image = np.full(cpu.input_shape, 99, np.uint8)
        for bits in cpu.levels:
            np.testing.assert_array_equal(gpu.run(bits, image), cpu.run(bits, image))


def test_a_target_that_is_not_there_is_said_at_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pte"
    wrong = _export(run, path, "--target", "tpu")
    assert wrong.exit_code == 2 and "choose cpu or vulkan" in wrong.output
    for name in ("VK_ICD_FILENAMES", "VK_DRIVER_FILES"):
        monkeypatch.setenv(name, str(tmp_path / "nothing.json"))
    missing = _export(run, path, "--target", "vulkan")
    assert missing.exit_code == 2 and "--target vulkan: " in missing.output
    assert not path.exists()


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run), "not a finished run"),
        (lambda run: (run / "report.json").unlink(), "not a finished run (no report.json)"),
        (lambda run: (run / "report.json").write_text("{"), "is damaged"),
        (lambda run: (run / "checkpoint.safetensors").write_bytes(b"12"), "is damaged"),
        (
            lambda run: _edit(run / "recipe.toml", '"digits"\nroot', '"cifar10"\nroot'),
            "give --data FOLDER",
        ),
        (lambda run: (run / "recipe.toml").write_text("epohcs = 1"), "unknown key"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_wrong_usage(
    run: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    damage(broken)
    result = _export(broken, tmp_path / "model.pte")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert not (tmp_path / "model.pte").exists()


def test_a_place_that_does_not_exist_is_wrong_usage(run: Path, tmp_path: Path) -> None:
    result = _export(run, tmp_path / "missing" / "model.pte")
    assert result.exit_code == 2 and "change --output" in result.stderr


def test_a_network_that_cannot_be_exact_leaves_the_old_file(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    tensors = load_file(run / "checkpoint.safetensors")
    with safe_open(run / "checkpoint.safetensors", "pt") as stored:
        metadata = stored.metadata()
    tensors["model.stem.bn.running_var"][0] = -1
    save_file(tensors, broken / "checkpoint.safetensors", metadata)
    output = tmp_path / "model.pte"
    output.write_bytes(b"old")
    result = _export(broken, output)
    assert result.exit_code == 1 and "stem: a batch-normalisation variance" in result.stderr
    assert output.read_bytes() == b"old"


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network(random_network: Callable[..., integer.IntegerNetwork]) -> integer.IntegerNetwork:
    return random_network(2, selection={2: (1,), 4: (2, 3)})


@pytest.fixture(scope="module")
def opened(network: integer.IntegerNetwork, tmp_path_factory: pytest.TempPathFactory) -> Program:
    about = {
        "levels": {"2": {}, "4": {}},
        "labels": network.labels,
        "input": {"height": 8, "width": 8},
    }
    path = tmp_path_factory.mktemp("random") / "model.pte"
    path.write_bytes(program.lower(network, about))
    return Program.open(path)


def test_oracle_comparison(network: integer.IntegerNetwork, opened: Program) -> None:
    steps: list[int] = []
    verification.compare_with_oracle(opened, network, IMAGES, steps.append)
    assert sum(steps) == len(IMAGES)


def test_oracle_comparison_notices_one_weight_code(
    network: integer.IntegerNetwork, opened: Program
) -> None:
    """The last convolution of one branch at one level, in the oracle only."""
    level = network.levels[4]
    block = level.bodies[1][-1]
    codes = block.conv2.codes.copy()
    codes[0, 1, 1, 0] ^= 1
    changed = replace(block, conv2=replace(block.conv2, codes=codes))
    bodies = (level.bodies[0], (*level.bodies[1][:-1], changed))
    other = replace(network, levels={**network.levels, 4: replace(level, bodies=bodies)})
    with pytest.raises(VerificationError, match="4 bits: image .* differ from the oracle's"):
        verification.compare_with_oracle(opened, other, IMAGES)


def test_oracle_comparison_notices_a_missing_level(
    network: integer.IntegerNetwork, opened: Program
) -> None:
    other = replace(network, levels={2: network.levels[2]})
    with pytest.raises(VerificationError, match=r"has the levels \[2, 4\], the network has \[2\]"):
        verification.compare_with_oracle(opened, other, IMAGES)


def test_logits_that_are_no_numbers_never_agree() -> None:
    good = np.array([[1, 2]], dtype=np.float32)
    for actual, expected in ((good * np.nan, good), (good, good * np.nan)):
        with pytest.raises(VerificationError):
            verification._compare_logits("here", 0, actual, expected)


def test_ties_within_the_tolerance_may_go_either_way() -> None:
    tie = np.array([[1, 1.00001]], dtype=np.float32)
    verification._compare_logits("here", 0, tie[:, ::-1], tie)


def test_accuracy_counts_images_and_changes(network: integer.IntegerNetwork) -> None:
    labels = np.array([0, 1, 2, 3])
    trained = {2: np.array([0, 1, 2, 0]), 4: np.array([0, 1, 2, 3])}
    found = {2: np.array([0, 1, 0, 3]), 4: np.array([0, 1, 2, 3])}
    results = verification.compare_accuracy(network, labels, trained, found)
    assert results == (
        LevelAccuracy(2, (1,), 0.75, 0.75, 2),
        LevelAccuracy(4, (2, 3), 1.0, 1.0, 0),
    )


@pytest.mark.parametrize(
    ("images", "wrong", "accepted"),
    [(10_000, 10, True), (10_000, 11, False), (5000, 5, True), (5000, 6, False),
     (360, 0, True), (360, 1, True), (360, 2, False)],
)  # fmt: skip
def test_a_tenth_of_a_point_is_the_limit(images: int, wrong: int, accepted: bool) -> None:
    for sign in (-1, 1):
        levels = [
            LevelAccuracy(2, (1,), 0.9, 0.9, 0),
            LevelAccuracy(4, (2, 3), 0.9, 0.9 + sign * wrong / images, wrong),
        ]
        if accepted:
            verification.require_equal_accuracy(levels, images)
        else:
            with pytest.raises(VerificationError, match=f"4 bits .*{wrong} of {images} images"):
                verification.require_equal_accuracy(levels, images)
