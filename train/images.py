"""Single images and batches of them: reading, cropping, flipping."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from train.recipe import DataRecipe, RecipeError

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
"""Area and width / height of random crops (Szegedy et al., CVPR 2015)."""


def generator(*key: int) -> torch.Generator:
    """A CPU generator that depends on ``key`` alone."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def read_image(path: Path) -> Any:
    """The PIL image in RGB, upright.

    Raises:
        RecipeError: names a file that is not an image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).replace(str(path), "the file")
        raise RecipeError(f"{path}: cannot be read as an image: {reason}; remove it") from None


def fit(image: Any, side: int) -> Images:
    """The centred square, averaged to ``[side, side, 3]`` as the device does it."""
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BOX), np.uint8)


def centre_crop(image: Any, side: int) -> Images:
    """7/8 of the shorter side, from the centre, as ``[side, side, 3]``."""
    from PIL import Image

    width, height = image.size
    scale = round(side * 8 / 7) / min(width, height)
    cut = side / scale
    left, top = (width - cut) / 2, (height - cut) / 2
    box = (left, top, left + cut, top + cut)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box), np.uint8)


def random_crop(image: Any, side: int, flip: bool, source: torch.Generator) -> Images:
    """A crop of random area and aspect ratio as ``[side, side, 3]``; ``flip`` mirrors every second."""
    from PIL import Image

    width, height = image.size
    # All numbers are drawn at once, so that the flip does not depend on how many crops did not fit.
    draws = torch.rand(10, 4, generator=source, dtype=torch.float64)
    box = (0.0, 0.0, float(width), float(height))
    for area, ratio, x, y in draws.tolist():
        pixels = width * height * (CROP_AREA[0] + area * (CROP_AREA[1] - CROP_AREA[0]))
        low, high = map(math.log, CROP_RATIO)
        aspect = math.exp(low + ratio * (high - low))
        w, h = max(1, round(math.sqrt(pixels * aspect))), max(1, round(math.sqrt(pixels / aspect)))
        if w <= width and h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            box = (left, top, left + w, top + h)
            break
    result = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box), np.uint8)
    if flip and float(torch.rand((), generator=source)) < 0.5:
        result = result[:, ::-1]
    return result


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
