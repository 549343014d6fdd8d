"""The datasets a recipe can name, from the layouts in which they are distributed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

from train.images import Images, Labels, augment, fit, generator, read_image
from train.loaders import (
    Batches,
    Dataset,
    MemoryDataset,
    StreamedDataset,
    open_batches,
)
from train.recipe import DataRecipe, RecipeError

__all__ = [
    "CIFAR10_LABELS",
    "Batches",
    "DataRecipe",
    "Dataset",
    "MemoryDataset",
    "StreamedDataset",
    "augment",
    "generator",
    "load_dataset",
    "open_batches",
]

CIFAR10_LABELS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
DIGITS_HELD_OUT = 360
DIGITS_SPLIT_SEED = 20250101

STREAM_BYTES = 4_000_000_000
"""A set of own images that takes more when decoded is read from disk as it is needed."""
STREAM_SIZE = 64
"""Smaller images always stay in memory."""

_TORCHVISION = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
_NAMES = ("LOC_synset_mapping.txt", "synset_words.txt")


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
            f"data.root: no folder '{recipe.root}'; give the folder that holds {_layout(recipe)} "
            "(--set data.root=FOLDER)"
        )
    if recipe.dataset == "images":
        return _own_images(root, split, recipe)
    if recipe.dataset == "imagenet":
        return _imagenet(root, split, recipe)
    if (root / _TORCHVISION[recipe.dataset]).is_dir():
        return _torchvision_cifar(root, split, recipe.dataset)
    if (root / split).is_dir():
        return _cifar_folder(root, split, recipe.dataset)
    raise RecipeError(
        f"data.root: '{root}' holds neither {_layout(recipe).replace(', or', ' nor')}"
    )


def _layout(recipe: DataRecipe) -> str:
    if recipe.dataset == "images":
        return "one folder of images for each class, or 'train' and 'test' with these inside"
    if recipe.dataset == "imagenet":
        return "'train' and 'val', in each one folder of images for each class"
    return (
        "'train/<class>/<image>' and 'test/<class>/<image>', or torchvision's "
        f"'{_TORCHVISION[recipe.dataset]}'"
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
    return MemoryDataset(images, bunch.target[chosen].astype(np.int64), tuple("0123456789"), name)


def _torchvision_cifar(root: Path, split: str, name: str) -> Dataset:
    from train.vision import torchvision_datasets

    reader = getattr(torchvision_datasets(), name.upper())
    try:
        source = reader(str(root), train=split == "train", download=False)
    except RuntimeError as error:
        raise RecipeError(
            f"data.root: '{root / _TORCHVISION[name]}' does not match the published files "
            f"({str(error).splitlines()[0]}); unpack the archive again"
        ) from None
    labels = np.asarray(source.targets, dtype=np.int64)
    return MemoryDataset(
        source.data, labels, tuple(source.classes), f"{name} {split} ({len(labels)})"
    )


def _cifar_folder(root: Path, split: str, name: str) -> Dataset:
    """``root/{train,test}/<class>/<image>``; classes of CIFAR-100 in alphabetical order."""
    classes: tuple[str, ...] = CIFAR10_LABELS
    if name == "cifar100":
        listed = root / ("train" if (root / "train").is_dir() else split)
        classes = _subfolders(listed)
        if len(classes) != 100:
            raise RecipeError(
                f"{listed}: expected one folder for each of CIFAR-100's classes"
                f' (found {len(classes)}); other sets are dataset = "images"'
            )
    files = _files(root / split, classes, f"{name} {split}")
    return _in_memory(root / split, files, classes, f"{name} {split}", None)


def _own_images(root: Path, split: str, recipe: DataRecipe) -> Dataset:
    """``root/{train,test}/<class>/<image>``, or ``root/<class>/<image>`` with a fifth held out."""
    folders = {name: root / name for name in ("train", "test")}
    if not (root / "test").is_dir() and (root / "val").is_dir():
        folders["test"] = root / "val"
    divided = [folder.is_dir() for folder in folders.values()]
    if any(divided) and not all(divided):
        raise RecipeError(f"data.root: '{root}' has 'train' or 'test' but not both")
    classes = _subfolders(folders["train"] if all(divided) else root)
    if len(classes) < 2:
        raise RecipeError(
            f"data.root: '{root}' needs at least two folders of images, one for each class"
        )
    name = f"{root.name} {'held-out' if split == 'test' else split}"
    folder = folders[split] if all(divided) else root
    files = _files(folder, classes, name, hold_out=None if all(divided) else split)
    decoded = sum(map(len, files)) * 3 * recipe.size**2
    if recipe.size > STREAM_SIZE and decoded > STREAM_BYTES:
        return _streamed(folder, files, classes, name, recipe, "none")
    return _in_memory(folder, files, classes, name, recipe.size)


def _imagenet(root: Path, split: str, recipe: DataRecipe) -> Dataset:
    """``root/{train,val}/<class>/<image>``; a file of names beside them replaces "n01440764"."""
    absent = [name for name in ("train", "val") if not (root / name).is_dir()]
    if absent:
        raise RecipeError(
            f"data.root: '{root}' has no folder '{absent[0]}'; it needs {_layout(recipe)}"
        )
    folders = _subfolders(root / "train")
    if len(folders) < 2:
        raise RecipeError(f"{root / 'train'}: expected one folder of images for each class")
    folder = root / ("train" if split == "train" else "val")
    name = f"{root.name} {folder.name}"
    files = _files(folder, folders, name)
    return _streamed(folder, files, _readable(root, folders), name, recipe, "eighth")


def _readable(root: Path, folders: tuple[str, ...]) -> tuple[str, ...]:
    """Names from lines such as "n01440764 tench, Tinca tinca"; folders without one keep theirs."""
    lines: list[str] = []
    for file in _NAMES:
        if (root / file).is_file():
            lines = (root / file).read_text(encoding="utf-8", errors="replace").splitlines()
            break
    pairs = (line.partition(" ") for line in lines)
    names = {key: rest.partition(",")[0].strip() for key, _, rest in pairs if rest.strip()}
    chosen = [names.get(folder, folder) for folder in folders]
    # ImageNet has two cranes: the bird and the machine.
    return tuple(
        f"{name} ({folder})" if chosen.count(name) > 1 and name != folder else name
        for name, folder in zip(chosen, folders, strict=True)
    )


def _subfolders(folder: Path) -> tuple[str, ...]:
    with os.scandir(folder) as entries:
        return tuple(sorted(e.name for e in entries if e.is_dir() and e.name[0] != "."))


def _held_out(file: str) -> bool:
    """A fifth of all file names, the same ones whatever is added later."""
    return hashlib.sha256(file.encode()).digest()[0] % 5 == 0


def _files(
    folder: Path, classes: tuple[str, ...], name: str, hold_out: str | None = None
) -> list[list[str]]:
    """Names of the images in ``folder/<class>``, class by class.

    Args:
        name: of the set, for messages.
        hold_out: take the "test" or the "train" part of an undivided folder.
    """
    found = _subfolders(folder)
    if not found:
        raise RecipeError(f"{folder}: expected one folder of images for each class; it has none")
    if found != classes:
        missing = sorted(set(classes) - set(found)) or sorted(set(found) - set(classes))
        raise RecipeError(
            f"{folder}: expected one folder per class, the same ones in every part; differs at"
            f" {missing[:5]}"
        )
    files = []
    for label in classes:
        with os.scandir(folder / label) as entries:
            members = sorted(e.name for e in entries if e.is_file() and e.name[0] != ".")
        if hold_out is not None:
            members = [m for m in members if _held_out(m) == (hold_out == "test")]
        if not members:
            raise RecipeError(f"{folder / label}: too few images in this class (none for {name})")
        files.append(members)
    return files


def _labels(files: list[list[str]]) -> Labels:
    return np.repeat(np.arange(len(files)), [len(f) for f in files]).astype(np.int64)


def _streamed(
    folder: Path,
    files: list[list[str]],
    classes: tuple[str, ...],
    name: str,
    recipe: DataRecipe,
    margin: str,
) -> Dataset:
    labels = _labels(files)
    paths = [
        f"{label}/{file}"
        for label, members in zip(_subfolders(folder), files, strict=True)
        for file in members
    ]
    title = f"{name} ({len(labels)})"
    return StreamedDataset(
        folder, paths, labels, classes, title, recipe.size, recipe.workers, margin
    )


def _in_memory(
    folder: Path, files: list[list[str]], classes: tuple[str, ...], name: str, size: int | None
) -> Dataset:
    labels = _labels(files)
    paths = [folder / label / f for label, part in zip(classes, files, strict=True) for f in part]
    return MemoryDataset(_decode_cached(paths, size), labels, classes, f"{name} ({len(labels)})")


def _decode_cached(files: list[Path], size: int | None) -> Images:
    """Decode once and keep the result beside the system's caches.

    ``size``: the side of the square that every image becomes; None where all have one size already.
    """
    listing = "\n".join(
        [str(size), *(f"{p}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files)]
    )
    key = hashlib.sha256(listing.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "edge-app-train"
    file = cache / f"images-{key}.npy"
    if file.exists():
        cached: Images = np.load(file)
        return cached

    def decode(path: Path) -> Images:
        image = read_image(path)
        return np.asarray(image, np.uint8) if size is None else fit(image, size)

    first = decode(files[0])
    images = np.empty((len(files), *first.shape), np.uint8)
    for index, path in enumerate(files):
        image = decode(path)
        if image.shape != first.shape:
            raise RecipeError(
                f"{path}: size {image.shape[:2]}, others have {first.shape[:2]}; images of different"
                ' sizes are dataset = "images"'
            )
        images[index] = image
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, suffix=".npy", delete=False) as beside:
        np.save(beside, images)
    os.replace(beside.name, file)
    return images
