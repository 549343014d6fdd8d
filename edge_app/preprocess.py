"""From a source's frame to the model's input: crop, size, colour order. No normalisation: that is
folded into the model's stem, which takes 8-bit pixels."""

from __future__ import annotations

import numpy as np

from edge_app.sources.base import Frame, Image, require_cv2


def prepare(frame: Frame, height: int, width: int) -> Image:
    """uint8 ``[height,width,3]`` RGB, C-contiguous: the largest centred window of the model's
    aspect ratio, resized.

    Shrinking averages over the area (no aliasing), enlarging interpolates. A frame that already
    has the model's size needs no OpenCV.
    """
    image = centre_crop(frame.image, height, width)
    if image.shape[:2] != (height, width):
        cv2 = require_cv2()
        shrinks = image.shape[0] >= height and image.shape[1] >= width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, (width, height), interpolation=method)
    if frame.order == "bgr":
        image = image[..., ::-1]
    return np.ascontiguousarray(image)


def centre_crop(image: Image, height: int, width: int) -> Image:
    """The largest centred window of ``image`` whose sides are as ``height`` to ``width``; a view.

    Cropping keeps shapes as training saw them; squeezing a wide frame into a square would not.
    """
    rows, columns = image.shape[:2]
    crop_rows = max(1, min(rows, round(columns * height / width)))
    crop_columns = max(1, min(columns, round(rows * width / height)))
    top, left = (rows - crop_rows) // 2, (columns - crop_columns) // 2
    return image[top : top + crop_rows, left : left + crop_columns]
