"""Datasets: layouts, errors, augmentation."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from train.data import CIFAR10_LABELS, DataRecipe, augment, generator, load_dataset
from train.recipe import RecipeError
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


def test_torchvision_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(0)
    checksums = {}

    def write(name: str, content: object) -> None:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        checksums[name] = hashlib.md5(data).hexdigest()

    pixels = {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        pixels[name] = random.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
        write(name, {"data": pixels[name].reshape(4, 3072), "labels": [0, 3, 9, 1]})
    write("batches.meta", {"label_names": list(CIFAR10_LABELS)})
    with pytest.raises(RecipeError, match="does not match the published"):
        load_dataset(DataRecipe("cifar10", str(tmp_path)), "train")

    # torchvision's own reader, with the checksums of these small files.
    reader = torchvision_datasets().CIFAR10
    listed = list(checksums.items())
    monkeypatch.setattr(reader, "train_list", listed[:5])
    monkeypatch.setattr(reader, "test_list", listed[5:6])
    meta = {**reader.meta, "md5": checksums["batches.meta"]}
    monkeypatch.setattr(reader, "meta", meta)
    train, test = (load_dataset(DataRecipe("cifar10", str(tmp_path)), s) for s in ("train", "test"))
    assert train.images.shape == (20, 32, 32, 3) and train.labels.tolist() == [0, 3, 9, 1] * 5
    np.testing.assert_array_equal(test.images, pixels["test_batch"].transpose(0, 2, 3, 1))


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
