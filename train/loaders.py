"""Sets of images, in memory or read as they are needed, and batches of them.

Small sets live whole on the training device as uint8 and are augmented there, a batch at a time.
Large ones are read, cropped and flipped by worker processes ahead of the training. Order and
augmentation depend on (seed, epoch, step) or (seed, epoch, image) alone, so that training can stop and
resume anywhere, with any number of workers, and still give the same result.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from train.images import (
    Images,
    Labels,
    augment,
    centre_crop,
    fit,
    generator,
    random_crop,
    read_image,
)
from train.recipe import DataRecipe, RecipeError

IMAGENET_MEAN = tuple(round(255.0 * v, 3) for v in (0.485, 0.456, 0.406))
IMAGENET_STD = tuple(round(255.0 * v, 3) for v in (0.229, 0.224, 0.225))
"""Of ImageNet's training images, as all its published results use them; pixel units 0..255."""

PREFETCH = 4
"""Batches that each worker reads ahead."""


class Dataset(ABC):
    """Labelled RGB images of one size.

    Attributes:
        labels: int64 ``[N]``.
        classes: their names.
        name: for reports.
    """

    def __init__(self, labels: Labels, classes: tuple[str, ...], name: str) -> None:
        self.labels, self.classes, self.name = labels, classes, name

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def images(self) -> Images:
        """All images at once, uint8 ``[N, H, W, 3]``."""

    @property
    @abstractmethod
    def input_size(self) -> tuple[int, int]:
        """(height, width)."""

    @abstractmethod
    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, in pixel units 0..255."""

    @abstractmethod
    def batches(self, size: int, rank: int = 0, world: int = 1) -> Iterator[tuple[Images, Labels]]:
        """All images in order, ``size`` at a time: uint8 ``[B, H, W, 3]`` and labels ``[B]``.

        With several processes each gets every ``world``-th batch.
        """

    def sample(self, count: int) -> Dataset:
        """At most ``count`` of the images, evenly spread; the order stays."""
        if len(self) <= count:
            return self
        return self._choose(np.arange(count) * len(self) // count)

    @abstractmethod
    def _choose(self, numbers: npt.NDArray[np.int64]) -> Dataset:
        """The set of these images only."""


class MemoryDataset(Dataset):
    """A set that is held in memory."""

    def __init__(self, images: Images, labels: Labels, classes: tuple[str, ...], name: str) -> None:
        super().__init__(labels, classes, name)
        self._images = images

    @property
    def images(self) -> Images:
        return self._images

    @property
    def input_size(self) -> tuple[int, int]:
        return self._images.shape[1], self._images.shape[2]

    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        pixels = self.images.reshape(-1, 3).astype(np.float64)
        mean, std = pixels.mean(0), pixels.std(0)
        return tuple(mean.round(3).tolist()), tuple(std.round(3).tolist())

    def batches(self, size: int, rank: int = 0, world: int = 1) -> Iterator[tuple[Images, Labels]]:
        for start in range(rank * size, len(self), size * world):
            yield self.images[start : start + size], self.labels[start : start + size]

    def _choose(self, numbers: npt.NDArray[np.int64]) -> Dataset:
        return MemoryDataset(self.images[numbers], self.labels[numbers], self.classes, self.name)


class StreamedDataset(Dataset):
    """A set that stays on disk; every image is decoded when it is needed.

    Args:
        folder: where the files are.
        files: their paths below it.
        labels, classes, name: as in every set.
        side: of the square that images become, in pixels.
        workers: processes that decode.
        margin: how much of an image evaluation sees: "none" takes the centred square whole, as the
            device does with a camera's frames; "eighth" scales the shorter side to 8/7 of ``side`` and
            cuts the centre out, as published results on ImageNet do (256 and 224).
    """

    def __init__(
        self,
        folder: Path,
        files: list[str],
        labels: Labels,
        classes: tuple[str, ...],
        name: str,
        side: int,
        workers: int,
        margin: str,
    ) -> None:
        super().__init__(labels, classes, name)
        self.folder, self.side, self.workers, self.margin = folder, side, workers, margin
        # One array of bytes: worker processes would copy a million strings page by page.
        self.files = np.array([os.fsencode(f) for f in files])
        self._images: Images | None = None

    @property
    def images(self) -> Images:
        """All images at once. Only for sets that fit into memory; prefer :meth:`batches`."""
        if self._images is None:
            self._images = np.concatenate([images for images, _ in self.batches(256)])
        return self._images

    @property
    def input_size(self) -> tuple[int, int]:
        return self.side, self.side

    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Those of ImageNet: a pass over a set of this size would take longer than it is worth."""
        return IMAGENET_MEAN, IMAGENET_STD

    def batches(self, size: int, rank: int = 0, world: int = 1) -> Iterator[tuple[Images, Labels]]:
        starts = range(rank * size, len(self), size * world)
        order = [(None, list(range(s, min(s + size, len(self))))) for s in starts]
        decoder = _Decoder(self, seed=0, flip=False)
        for pixels, labels in _loader(decoder, order, self.workers, pin=False):
            yield pixels.numpy(), labels.numpy()

    def _choose(self, numbers: npt.NDArray[np.int64]) -> Dataset:
        chosen = copy.copy(self)
        chosen.files, chosen.labels = self.files[numbers], self.labels[numbers]
        chosen._images = None
        return chosen

    def path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self.files[index])


_Key = tuple[int | None, list[int]]


@dataclass(frozen=True)
class _Decoder(TorchDataset[Any]):
    """What a worker runs: (epoch, or None to evaluate; image numbers) -> (uint8 NHWC, labels).

    An image that cannot be read gives the message: exceptions lose their type between processes.
    """

    source: StreamedDataset
    seed: int
    flip: bool

    def __getitem__(self, key: _Key) -> tuple[Tensor, Tensor] | str:
        epoch, chosen = key
        side = self.source.side
        pixels = np.empty((len(chosen), side, side, 3), np.uint8)
        for place, index in enumerate(chosen):
            try:
                image = read_image(self.source.path(index))
            except RecipeError as error:
                return str(error)
            if epoch is not None:
                draw = generator(self.seed, epoch, index)
                pixels[place] = random_crop(image, side, self.flip, draw)
            elif self.source.margin == "none":
                pixels[place] = fit(image, side)
            else:
                pixels[place] = centre_crop(image, side)
        return torch.from_numpy(pixels), torch.from_numpy(self.source.labels[chosen])


def _loader(
    decoder: _Decoder, order: Sampler[_Key] | Sequence[_Key], workers: int, pin: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches in the given order, decoded ahead.

    Raises:
        RecipeError: an image that cannot be read.
    """
    loader: DataLoader[Any] = DataLoader(
        decoder,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        pin_memory=pin,
    )
    for item in loader:
        if isinstance(item, str):
            raise RecipeError(item)
        yield item[0], item[1]


class BatchSource(Protocol):
    """Shuffled, augmented batches.

    Attributes:
        batch: images in a (global) batch: the recipe's, or the whole set when it is smaller.
        steps: batches in an epoch; the last, incomplete one is left out.
    """

    batch: int
    steps: int

    def get(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """Batch ``step`` of ``epoch``: images uint8 ``[B, 3, H, W]``, labels int64 ``[B]``.

        Of several processes each gets its own slice, ``B / world`` images.
        """


def open_batches(
    dataset: Dataset, recipe: DataRecipe, seed: int, device: torch.device
) -> BatchSource:
    """Batches of either kind of set."""
    if isinstance(dataset, StreamedDataset):
        return StreamedBatches(dataset, recipe, seed, device)
    return Batches(dataset, recipe, seed, device)


class _Order:
    """The order of an epoch's images."""

    def __init__(self, images: int, batch: int, seed: int) -> None:
        self.images, self.seed = images, seed
        self.batch = min(batch, images)
        self.steps = images // self.batch
        self._epoch: int | None = None
        self._order = torch.empty(0, dtype=torch.int64)

    def chosen(self, epoch: int, step: int) -> Tensor:
        """Image numbers of a whole batch."""
        if self._epoch != epoch:
            self._epoch = epoch
            self._order = torch.randperm(self.images, generator=generator(self.seed, epoch))
        return self._order[step * self.batch : (step + 1) * self.batch]


class Batches:
    """:class:`BatchSource` of a set that lies on ``device`` as uint8 NCHW and is augmented there."""

    def __init__(
        self, dataset: Dataset, recipe: DataRecipe, seed: int, device: torch.device
    ) -> None:
        self.images = torch.from_numpy(dataset.images).permute(0, 3, 1, 2).contiguous().to(device)
        self.labels = torch.from_numpy(dataset.labels).to(device)
        self.recipe = recipe
        self.seed = seed
        self._order = _Order(len(dataset), recipe.batch, seed)
        self.batch, self.steps = self._order.batch, self._order.steps

    def get(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """See :class:`BatchSource`. A slice is cut from the augmented whole batch: that is cheap."""
        chosen = self._order.chosen(epoch, step).to(self.images.device)
        images = augment(self.images[chosen], self.recipe, generator(self.seed, epoch, step))
        return images.chunk(world)[rank], self.labels[chosen].chunk(world)[rank]


@dataclass(frozen=True)
class _Position:
    """A process's slice of a batch."""

    epoch: int
    step: int
    rank: int
    world: int

    def after(self, steps: int) -> _Position:
        """The same of the next batch."""
        if self.step + 1 < steps:
            return dataclasses.replace(self, step=self.step + 1)
        return dataclasses.replace(self, epoch=self.epoch + 1, step=0)


class _Slices(Sampler[_Key]):
    """What the workers read: the slices of all batches from ``start`` on, epoch after epoch."""

    def __init__(self, order: _Order, start: _Position) -> None:
        self.order, self.start = order, start

    def __iter__(self) -> Iterator[_Key]:
        at = self.start
        while True:
            batch = self.order.chosen(at.epoch, at.step)
            yield at.epoch, batch.chunk(at.world)[at.rank].tolist()
            at = at.after(self.order.steps)


class StreamedBatches:
    """:class:`BatchSource` of a set on disk, cropped and flipped by workers that read ahead.

    A process decodes its own slice only.
    """

    def __init__(
        self, dataset: StreamedDataset, recipe: DataRecipe, seed: int, device: torch.device
    ) -> None:
        self.device = device
        self._decoder = _Decoder(dataset, seed, recipe.flip)
        self._order = _Order(len(dataset), recipe.batch, seed)
        self.batch, self.steps = self._order.batch, self._order.steps
        self._next: _Position | None = None
        self._stream: Iterator[tuple[Tensor, Tensor]] = iter(())

    def get(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """See :class:`BatchSource`; steps in order are read ahead, any other one starts anew.

        Raises:
            RecipeError: an image that cannot be read.
        """
        position = _Position(epoch, step, rank, world)
        if self._next != position:
            workers = self._decoder.source.workers
            slices = _Slices(self._order, position)
            self._stream = _loader(self._decoder, slices, workers, self.device.type == "cuda")
        self._next = None  # an error must not leave a position that looks right
        pixels, labels = next(self._stream)
        self._next = position.after(self.steps)
        images = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return images, labels.to(self.device, non_blocking=True)
