"""Datasets as uint8 arrays, and augmentation in one batch on the device that trains.

Small datasets live whole on the training device. Shuffling and augmentation draw from generators
seeded by (seed, epoch, step), so that training can stop and resume anywhere without any generator
state and still give the same result.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from train.recipe import DataRecipe, RecipeError

CIFAR10_LABELS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
DIGITS_HELD_OUT = 360
DIGITS_SPLIT_SEED = 20250101

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Images ``uint8 [N, H, W, 3]`` (RGB), labels ``int64 [N]``, class names, a name for reports."""

    images: Images
    labels: Labels
    classes: tuple[str, ...]
    name: str

    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, in pixel units 0..255."""
        pixels = self.images.reshape(-1, 3).astype(np.float64)
        mean, std = pixels.mean(0), pixels.std(0)
        return tuple(mean.round(3).tolist()), tuple(std.round(3).tolist())


def load_dataset(recipe: DataRecipe, split: str) -> Dataset:
    """Load ``split`` ("train" or "test") of the recipe's dataset.

    Raises:
        RecipeError: when the data are missing or have another layout than expected.
    """
    if recipe.dataset == "digits":
        return _digits(split)
    root = Path(recipe.root).expanduser()
    if not recipe.root or not root.is_dir():
        raise RecipeError(
            f"data.root: no folder '{recipe.root}'; give the folder that holds one folder of images "
            "for each class, or 'train' and 'test' with these inside, or torchvision's "
            "'cifar-10-batches-py' (--set data.root=FOLDER)"
        )
    if recipe.dataset == "images":
        return _own_images(root, split, recipe.size)
    if (root / "cifar-10-batches-py").is_dir():
        return _torchvision_cifar10(root, split)
    if (root / split).is_dir():
        return _image_folder(root / split, CIFAR10_LABELS, f"cifar10 {split}")
    raise RecipeError(
        f"data.root: '{root}' holds neither '{split}/<class>/<image>' nor 'cifar-10-batches-py'"
    )


def _digits(split: str) -> Dataset:
    """UCI Optical Recognition of Handwritten Digits (8x8), as distributed with scikit-learn."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(DIGITS_SPLIT_SEED).permutation(len(bunch.target))
    chosen = order[:DIGITS_HELD_OUT] if split == "test" else order[DIGITS_HELD_OUT:]
    gray = np.rint(bunch.images[chosen] * (255.0 / 16.0)).astype(np.uint8)
    images = np.repeat(gray[..., None], 3, axis=-1)
    name = f"digits {'held-out' if split == 'test' else 'train'} ({len(chosen)})"
    return Dataset(images, bunch.target[chosen].astype(np.int64), tuple("0123456789"), name)


def _torchvision_cifar10(root: Path, split: str) -> Dataset:
    from train.vision import torchvision_datasets

    try:
        source = torchvision_datasets().CIFAR10(str(root), train=split == "train", download=False)
    except RuntimeError as error:
        raise RecipeError(
            f"data.root: '{root}/cifar-10-batches-py' does not match the published files ({error});"
            " unpack the archive again"
        ) from None
    labels = np.asarray(source.targets, dtype=np.int64)
    return Dataset(source.data, labels, CIFAR10_LABELS, f"cifar10 {split} ({len(labels)})")


def _own_images(root: Path, split: str, size: int) -> Dataset:
    """``root/{train,test}/<class>/<image>``, or ``root/<class>/<image>`` with a fifth held out."""
    divided = [(root / name).is_dir() for name in ("train", "test")]
    if any(divided) and not all(divided):
        raise RecipeError(f"data.root: '{root}' has 'train' or 'test' but not both")
    classes = _subfolders(root / "train" if all(divided) else root)
    if len(classes) < 2:
        raise RecipeError(
            f"data.root: '{root}' needs at least two folders of images, one for each class"
        )
    name = f"{root.name} {'held-out' if split == 'test' else split}"
    if all(divided):
        return _image_folder(root / split, classes, name, size)
    return _image_folder(root, classes, name, size, hold_out=split)


def _subfolders(folder: Path) -> tuple[str, ...]:
    return tuple(
        sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    )


def _held_out(file: Path) -> bool:
    """A fifth of all file names, the same ones whatever is added later."""
    return hashlib.sha256(file.name.encode()).digest()[0] % 5 == 0


def _image_folder(
    folder: Path,
    classes: tuple[str, ...],
    name: str,
    size: int | None = None,
    hold_out: str | None = None,
) -> Dataset:
    """A tree ``folder/<class>/<image>``, decoded once and cached beside the system's caches.

    ``size``: the side of the square that every image becomes; None where all have one size already.
    ``hold_out``: take the "test" or the "train" part of an undivided folder.
    """
    found = _subfolders(folder)
    if found != classes:
        missing = sorted(set(classes) - set(found)) or sorted(set(found) - set(classes))
        raise RecipeError(f"{folder}: expected one folder per class; differs at {missing}")
    files = []
    for label in classes:
        members = [p for p in (folder / label).iterdir() if p.is_file() and p.name[0] != "."]
        if hold_out is not None:
            members = [p for p in members if _held_out(p) == (hold_out == "test")]
        if not members:
            raise RecipeError(f"{folder / label}: too few images in this class (none for {name})")
        files.append(sorted(members))
    labels = np.repeat(np.arange(len(classes)), [len(f) for f in files]).astype(np.int64)
    images = _decode_cached([p for members in files for p in members], size)
    return Dataset(images, labels, classes, f"{name} ({len(labels)})")


def _decode_cached(files: list[Path], size: int | None) -> Images:
    listing = "\n".join(
        [str(size), *(f"{p}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files)]
    )
    key = hashlib.sha256(listing.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "edge-app-train"
    file = cache / f"images-{key}.npy"
    if file.exists():
        cached: Images = np.load(file)
        return cached
    from PIL import Image, ImageOps

    def decode(path: Path) -> Images:
        try:
            with Image.open(path) as image:
                pixels = ImageOps.exif_transpose(image).convert("RGB")
                if size is not None:
                    # The device crops and averages likewise before it runs the network.
                    pixels = ImageOps.fit(pixels, (size, size), Image.Resampling.BOX)
                return np.asarray(pixels, dtype=np.uint8)
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read as an image: {error}") from None

    first = decode(files[0])
    images = np.empty((len(files), *first.shape), np.uint8)
    for index, path in enumerate(files):
        image = decode(path)
        if image.shape != first.shape:
            raise RecipeError(f"{path}: size {image.shape[:2]}, others have {first.shape[:2]}")
        images[index] = image
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, suffix=".npy", delete=False) as beside:
        np.save(beside, images)
    os.replace(beside.name, file)
    return images


def generator(*key: int) -> torch.Generator:
    """A CPU generator that depends on ``key`` alone."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Batches:
    """Shuffled, augmented batches of a dataset that lies on ``device`` as uint8 NCHW."""

    def __init__(
        self, dataset: Dataset, recipe: DataRecipe, seed: int, device: torch.device
    ) -> None:
        self.images = torch.from_numpy(dataset.images).permute(0, 3, 1, 2).contiguous().to(device)
        self.labels = torch.from_numpy(dataset.labels).to(device)
        self.recipe = recipe
        self.seed = seed
        # At least one batch, of the whole dataset when it is smaller than a batch.
        self.batch = min(recipe.batch, len(self.labels))
        self.steps = len(self.labels) // self.batch
        self._order: tuple[int | None, Tensor] = (None, torch.empty(0))

    def get(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Batch ``step`` of ``epoch``: images uint8 ``[B, 3, H, W]``, labels int64 ``[B]``.

        The last, incomplete batch of an epoch is left out; the next epoch shuffles anew.
        """
        if self._order[0] != epoch:
            self._order = (
                epoch,
                torch.randperm(len(self.labels), generator=generator(self.seed, epoch)).to(
                    self.images.device
                ),
            )
        chosen = self._order[1][step * self.batch : (step + 1) * self.batch]
        images = augment(self.images[chosen], self.recipe, generator(self.seed, epoch, step))
        return images, self.labels[chosen]


def augment(images: Tensor, recipe: DataRecipe, source: torch.Generator) -> Tensor:
    """Random horizontal flips and random crops after zero padding, one draw per image.

    ``images`` is uint8 ``[N, C, H, W]``; the result has the same shape and dtype.
    """
    count, channels, height, width = images.shape
    if recipe.flip:
        flip = torch.rand(count, generator=source).lt(0.5).to(images.device)
        images = torch.where(flip[:, None, None, None], images.flip(3), images)
    pad = recipe.crop_padding
    if pad:
        offsets = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=source).to(images.device)
        rows = (offsets[0] + torch.arange(height, device=images.device))[:, None, :, None]
        columns = (offsets[1] + torch.arange(width, device=images.device))[:, None, None, :]
        batch = torch.arange(count, device=images.device)[:, None, None, None]
        channel = torch.arange(channels, device=images.device)[None, :, None, None]
        images = F.pad(images, [pad] * 4)[batch, channel, rows, columns]
    return images
