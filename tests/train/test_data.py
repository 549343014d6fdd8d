"""Datasets: layouts, errors, augmentation."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from train import data
from train.data import (
    CIFAR10_LABELS,
    StreamedDataset,
    augment,
    generator,
    load_dataset,
    open_batches,
)
from train.engine import Trainer
from train.images import random_crop
from train.loaders import IMAGENET_MEAN
from train.recipe import DataRecipe, RecipeError, load_recipe
from train.vision import torchvision_datasets


def _image_tree(root: Path) -> None:
    for split in ("train", "test"):
        for index, label in enumerate(CIFAR10_LABELS):
            folder = root / split / label
            folder.mkdir(parents=True)
            for n in range(2):
                pixels = np.full((32, 32, 3), 20 * index + n, np.uint8)
                Image.fromarray(pixels).save(folder / f"{n}.png")


def test_image_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _image_tree(tmp_path)
    recipe = DataRecipe("cifar10", str(tmp_path))
    for _ in range(2):  # the second time from the cache
        dataset = load_dataset(recipe, "test")
        assert dataset.images.shape == (20, 32, 32, 3) and dataset.classes == CIFAR10_LABELS
        assert [int(i[0, 0, 0]) // 20 for i in dataset.images] == dataset.labels.tolist()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_torchvision_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    hundred = name == "cifar100"
    folder = tmp_path / ("cifar-100-python" if hundred else "cifar-10-batches-py")
    folder.mkdir()
    random = np.random.default_rng(0)
    checksums = {}

    def write(file: str, content: object) -> None:
        data = pickle.dumps(content)
        (folder / file).write_bytes(data)
        checksums[file] = hashlib.md5(data).hexdigest()

    parts = ["train"] if hundred else [f"data_batch_{i}" for i in range(1, 6)]
    classes = tuple(f"class {n:02}" for n in range(100)) if hundred else CIFAR10_LABELS
    pixels = {}
    for part in [*parts, "test" if hundred else "test_batch"]:
        pixels[part] = random.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
        key = "fine_labels" if hundred else "labels"
        write(part, {"data": pixels[part].reshape(4, 3072), key: [0, 3, 9, 1]})
    key = "fine_label_names" if hundred else "label_names"
    write("meta" if hundred else "batches.meta", {key: list(classes)})
    with pytest.raises(RecipeError, match=f"{folder.name}' does not match the published.*unpack"):
        load_dataset(DataRecipe(name, str(tmp_path)), "train")

    # torchvision's own reader, with the checksums of these small files.
    reader = getattr(torchvision_datasets(), name.upper())
    listed = list(checksums.items())
    monkeypatch.setattr(reader, "train_list", listed[: len(parts)])
    monkeypatch.setattr(reader, "test_list", listed[len(parts) : -1])
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": listed[-1][1]})
    train, test = (load_dataset(DataRecipe(name, str(tmp_path)), s) for s in ("train", "test"))
    assert train.images.shape == (4 * len(parts), 32, 32, 3) and train.classes == classes
    assert train.labels.tolist() == [0, 3, 9, 1] * len(parts)
    np.testing.assert_array_equal(test.images, list(pixels.values())[-1].transpose(0, 2, 3, 1))
    mean, std = train.pixel_statistics()
    assert mean == pytest.approx(train.images.mean((0, 1, 2)), abs=1e-3)
    assert std == pytest.approx(train.images.std((0, 1, 2)), abs=1e-3)


def test_data_errors_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="data.root: no folder"):
        load_dataset(DataRecipe("cifar10", str(tmp_path / "nowhere")), "train")
    with pytest.raises(RecipeError, match="holds neither"):
        load_dataset(DataRecipe("cifar10", str(tmp_path)), "train")
    _image_tree(tmp_path)
    for image in (tmp_path / "train" / "cat").iterdir():
        image.unlink()
    with pytest.raises(RecipeError, match="cat: too few images in this class"):
        load_dataset(DataRecipe("cifar10", str(tmp_path)), "train")
    (tmp_path / "train" / "cat").rmdir()
    with pytest.raises(RecipeError, match=r"differs at \['cat'\]"):
        load_dataset(DataRecipe("cifar10", str(tmp_path)), "train")
    (tmp_path / "test" / "cat" / "0.png").write_bytes(b"not an image")
    with pytest.raises(RecipeError, match="cannot be read as an image"):
        load_dataset(DataRecipe("cifar10", str(tmp_path)), "test")


def test_own_images_are_cropped_scaled_and_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "photos"
    for index, label in enumerate(("cat", "dog")):
        (root / label).mkdir(parents=True)
        for n in range(30):
            pixels = np.zeros((40, 60 + n, 3), np.uint8)
            pixels[:, 10 + n // 2 : 50 + n // 2] = 100 * index + n  # the centred square
            Image.fromarray(pixels).save(root / label / f"{n}.png")
    (root / ".thumbnails").mkdir()
    recipe = DataRecipe("images", str(root), size=16)
    train, test = (load_dataset(recipe, split) for split in ("train", "test"))
    assert train.classes == ("cat", "dog") and train.images.shape[1:] == (16, 16, 3)
    values = [sorted(int(image[8, 8, 0]) for image in part.images) for part in (train, test)]
    assert sorted(values[0] + values[1]) == [*range(30), *range(100, 130)], "each image once"
    assert 4 <= len(test.labels) <= 20
    assert [int(i[8, 8, 0]) // 100 for i in train.images] == train.labels.tolist()
    # Divided by the user: every image of "test" is held out, none of "train".
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "own" / split / label).mkdir(parents=True)
            Image.new("RGB", (20, 20)).save(tmp_path / "own" / split / label / "x.png")
    divided = load_dataset(DataRecipe("images", str(tmp_path / "own")), "test")
    assert divided.images.shape == (2, 32, 32, 3)
    with pytest.raises(RecipeError, match="at least two folders"):
        load_dataset(DataRecipe("images", str(root / "cat")), "train")


def test_augmentation_crops_and_flips_within_the_padded_image() -> None:
    images = torch.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8).to(torch.uint8).repeat(50, 1, 1, 1)
    recipe = DataRecipe(flip=True, crop_padding=1)
    result = augment(images, recipe, generator(3))
    assert result.shape == images.shape and result.dtype == torch.uint8
    assert torch.equal(result, augment(images, recipe, generator(3)))
    padded = torch.nn.functional.pad(images, [1] * 4)
    candidates = []
    for source in (padded, torch.nn.functional.pad(images.flip(3), [1] * 4)):
        for row in range(3):
            for column in range(3):
                candidates.append(source[:, :, row : row + 8, column : column + 8])
    matches = torch.stack([(result == c).flatten(1).all(1) for c in candidates])
    assert bool(matches.any(0).all())
    assert int(matches.any(1).sum()) == len(candidates)  # every crop and flip occurs


def test_digits_split_is_fixed_and_disjoint() -> None:
    train, test = (load_dataset(DataRecipe(), split) for split in ("train", "test"))
    assert len(train.labels) == 1437 and len(test.labels) == 360
    assert test.labels[:8].tolist() == load_dataset(DataRecipe(), "test").labels[:8].tolist()
    assert train.images.max() == 255 and train.images.dtype == np.uint8


CPU = torch.device("cpu")


def _imagenet(root: Path) -> DataRecipe:
    """Eleven training and four test images of different sizes, all of one colour each."""
    value = 0
    for split, counts in (("train", (5, 6)), ("val", (2, 2))):
        for label, count in zip(("n01", "n02"), counts, strict=True):
            (root / split / label).mkdir(parents=True)
            for n in range(count):
                size = (60 + 7 * n, 90 - 5 * n)
                Image.new("RGB", size, (value, 0, 255)).save(root / split / label / f"{n}.png")
                value += 1
    return DataRecipe("imagenet", str(root), size=28, batch=4, flip=True, workers=0)


def test_imagenet_is_streamed(tmp_path: Path) -> None:
    recipe = _imagenet(tmp_path)
    train, test = (load_dataset(recipe, split) for split in ("train", "test"))
    assert isinstance(train, StreamedDataset) and isinstance(test, StreamedDataset)
    assert len(train) == 11 and train.input_size == (28, 28) and train.classes == ("n01", "n02")
    assert train.pixel_statistics()[0] == IMAGENET_MEAN
    parts = list(test.batches(3))
    assert [len(labels) for _, labels in parts] == [3, 1]
    assert np.concatenate([images[:, 5, 5, 0] for images, _ in parts]).tolist() == [11, 12, 13, 14]
    assert np.concatenate([labels for _, labels in parts]).tolist() == [0, 0, 1, 1]
    shared = [list(test.batches(1, rank, 3)) for rank in range(3)]
    assert [[int(i[0, 0, 0, 0]) for i, _ in part] for part in shared] == [[11, 14], [12], [13]]
    (tmp_path / "synset_words.txt").write_text("n01 crane, a bird\nn02 crane\nn03 other\n")
    assert load_dataset(recipe, "test").classes == ("crane (n01)", "crane (n02)")


def test_streamed_batches_are_the_same_from_anywhere(tmp_path: Path) -> None:
    recipe = _imagenet(tmp_path)
    dataset = load_dataset(recipe, "train")
    whole = open_batches(dataset, recipe, 3, CPU)
    assert (whole.batch, whole.steps) == (4, 2)
    epochs = {at: whole.get(*at) for at in [(-1, 0), (0, 0), (0, 1), (1, 0), (1, 1)]}
    images, labels = epochs[0, 0]
    assert images.shape == (4, 3, 28, 28) and images.dtype == torch.uint8
    values = torch.cat([epochs[0, step][0][:, 0, 0, 0] for step in range(2)])
    assert len(set(values.tolist())) == 8, "each image at most once an epoch"
    assert labels.tolist() == [int(v >= 5) for v in images[:, 0, 0, 0]]
    assert not torch.equal(epochs[0, 0][0], epochs[1, 0][0])
    # Two workers that start in the middle and read ahead into the next epoch.
    resumed = open_batches(
        load_dataset(dataclasses.replace(recipe, workers=2), "train"), recipe, 3, CPU
    )
    for at in [(0, 1), (1, 0), (1, 1)]:
        for ours, theirs in zip(resumed.get(*at), epochs[at], strict=True):
            assert torch.equal(ours, theirs), at


@pytest.mark.parametrize("name", ["digits", "imagenet"])
def test_processes_share_a_batch(tmp_path: Path, name: str) -> None:
    recipe = _imagenet(tmp_path) if name == "imagenet" else DataRecipe(crop_padding=1, batch=32)
    dataset = load_dataset(recipe, "train")
    whole = open_batches(dataset, recipe, 1, CPU).get(2, 1)
    batches = open_batches(dataset, recipe, 1, CPU)
    parts = [batches.get(2, 1, rank, 2) for rank in range(2)]
    for index in range(2):
        assert torch.equal(torch.cat([part[index] for part in parts]), whole[index])


def test_training_is_the_same_with_any_number_of_workers(tmp_path: Path) -> None:
    data = _imagenet(tmp_path)
    begun = load_recipe("digits", ["pretrain.epochs=1", "train.epochs=2", "method.bits=[2,4]"])
    trained = []
    for workers in (0, 1):
        recipe = dataclasses.replace(begun, data=dataclasses.replace(data, workers=workers))
        trainer = Trainer(recipe, tmp_path / f"run{workers}")
        report = trainer.run()
        assert report["train_images"] == 11 and report["dataset"] == f"{tmp_path.name} val (4)"
        trained.append(trainer.network.state_dict())
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name]), name


def test_large_own_images_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for label in ("cat", "dog"):
        (tmp_path / "own" / label).mkdir(parents=True)
        for n in range(20):
            image = Image.fromarray(np.full((70, 90, 3), 5 * n, np.uint8))
            image.save(tmp_path / "own" / label / f"{n}.png")
    recipe = DataRecipe("images", str(tmp_path / "own"), size=65, workers=0)
    held = load_dataset(recipe, "test")
    monkeypatch.setattr(data, "STREAM_BYTES", 1000)
    streamed = load_dataset(recipe, "test")
    assert isinstance(streamed, StreamedDataset) and not isinstance(held, StreamedDataset)
    np.testing.assert_array_equal(streamed.images, held.images)
    assert streamed.labels.tolist() == held.labels.tolist() and streamed.name == held.name
    assert held.sample(len(held)) is held and streamed.sample(100) is streamed
    spread = [0, len(held) // 3, 2 * len(held) // 3]
    for dataset in (held.sample(3), streamed.sample(3)):
        assert dataset.labels.tolist() == held.labels[spread].tolist()
        np.testing.assert_array_equal(dataset.images, held.images[spread])


def test_random_crops_lie_within_the_image_and_are_mirrored() -> None:
    # Red is the column, green the row, so that a crop shows where it was taken.
    ramp = np.zeros((100, 200, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(200), np.arange(100)[:, None]
    image = Image.fromarray(ramp)
    areas, mirrored = [], 0
    for seed in range(200):
        crop = random_crop(image, 16, True, generator(seed)).astype(int)
        columns, rows = crop[8, :, 0], crop[:, 8, 1]
        mirrored += bool(columns[0] > columns[-1])
        assert (np.diff(rows) >= 0).all() and np.ptp(columns) > 0
        areas.append(np.ptp(columns) * np.ptp(rows) * (16 / 15) ** 2 / 20000)
    assert 60 < mirrored < 140
    assert 0.04 < min(areas) < 0.15 and 0.5 < max(areas) <= 1.05
    assert 0.25 < float(np.mean(areas)) < 0.6
    crop = random_crop(Image.fromarray(ramp[:3]), 16, False, generator(1))
    assert crop.shape == (16, 16, 3), "too narrow for any such crop"


def test_wrong_layouts_are_explained(tmp_path: Path) -> None:
    recipe = _imagenet(tmp_path / "imagenet")

    def wrong(message: str, chosen: DataRecipe = recipe, split: str = "test") -> None:
        with pytest.raises(RecipeError, match=message) as caught:
            for _ in load_dataset(chosen, split).batches(4):
                pass
        assert len(str(caught.value).splitlines()) == 1

    wrong("no folder ''", DataRecipe("imagenet"))
    hundred = DataRecipe("cifar100", str(tmp_path / "imagenet"))
    wrong(r"one folder for each of CIFAR-100's classes \(found 2\)", hundred, "train")
    val = tmp_path / "imagenet" / "val"
    (val / "n02" / "0.png").write_bytes(b"\xff\xd8 not an image")
    wrong(r"n02/0.png: cannot be read as an image")
    wrong(r"n02/0.png: cannot be read as an image", dataclasses.replace(recipe, workers=1))
    for image in (val / "n02").iterdir():
        image.unlink()
    wrong("n02: too few images in this class")
    (val / "n02").rename(val / "n03")
    wrong(r"val: expected one folder per class, the same ones .* differs at \['n02'\]")
    shutil.rmtree(val)
    wrong("has no folder 'val'; it needs 'train' and 'val'")
    flat = tmp_path / "flat"
    for split in ("train", "val"):
        (flat / split).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(flat / split / "0.png")
    wrong("train: expected one folder of images for each class", DataRecipe("imagenet", str(flat)))
    wrong("at least two folders of images", DataRecipe("images", str(flat)))
    shutil.rmtree(flat / "val")
    wrong("has 'train' or 'test' but not both", DataRecipe("images", str(flat)))
    (tmp_path / "file").write_text("")
    wrong("no folder", DataRecipe("images", str(tmp_path / "file")))


def test_sizes_that_differ_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _image_tree(tmp_path)
    Image.new("RGB", (30, 32)).save(tmp_path / "test" / "dog" / "1.png")
    with pytest.raises(RecipeError, match=r"dog/1.png: size \(32, 30\), others have \(32, 32\)"):
        load_dataset(DataRecipe("cifar10", str(tmp_path)), "test")
