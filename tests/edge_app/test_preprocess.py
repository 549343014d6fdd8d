"""Crop, size and colour order before the model."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edge_app.preprocess import centre_crop, prepare
from edge_app.sources import Frame
from edge_app.sources.digits import DigitsStream


def frame(image: np.ndarray, order: str = "rgb") -> Frame:
    assert order in ("rgb", "bgr")
    return Frame(image, "bgr" if order == "bgr" else "rgb", 0.0, 0.0)


@pytest.mark.parametrize(
    ("size", "target", "expected"),
    [
        ((432, 768), (32, 32), (432, 432)),
        ((768, 432), (32, 32), (432, 432)),
        ((480, 640), (24, 32), (480, 640)),
        ((480, 640), (32, 64), (320, 640)),
        ((1, 1), (32, 32), (1, 1)),
        ((1, 500), (500, 1), (1, 1)),
        ((7, 5), (224, 160), (7, 5)),
    ],
)
def test_the_window_is_the_largest_of_the_models_shape(
    size: tuple[int, int], target: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert centre_crop(np.zeros((*size, 3), np.uint8), *target).shape == (*expected, 3)


def test_the_window_is_in_the_middle() -> None:
    image = np.zeros((4, 10, 3), np.uint8)
    image[:, 3:7] = 255
    assert np.array_equal(prepare(frame(image), 4, 4), np.full((4, 4, 3), 255, np.uint8))


def test_shrinking_averages() -> None:
    # A checkerboard of single pixels: picking pixels would give black or white.
    image = np.indices((64, 64)).sum(axis=0) % 2 * 255
    gray = prepare(frame(np.repeat(image[..., None], 3, axis=-1).astype(np.uint8)), 8, 8)
    assert np.abs(gray.astype(int) - 128).max() <= 1


def test_enlarging_keeps_a_flat_picture_flat() -> None:
    result = prepare(frame(np.full((5, 7, 3), 93, np.uint8)), 32, 32)
    assert result.shape == (32, 32, 3) and np.all(result == 93)


def test_colours_come_out_as_rgb_and_contiguous() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    image[..., 0] = 250
    for size in (9, 3):
        from_bgr = prepare(frame(image, "bgr"), size, size)
        assert np.array_equal(from_bgr[0, 0], [0, 0, 250])
        assert from_bgr.flags.c_contiguous and from_bgr.dtype == np.uint8
        from_rgb = prepare(frame(image, "rgb"), size, size)
        assert np.array_equal(from_rgb[0, 0], [250, 0, 0])


def test_a_view_with_odd_strides_is_handled() -> None:
    image = np.arange(40 * 60 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 60, 3)
    view = image[::-1, 5:37:2]
    assert np.array_equal(
        prepare(frame(view), 16, 16), prepare(frame(np.ascontiguousarray(view)), 16, 16)
    )


def test_digits_reach_the_model_unchanged() -> None:
    digit = DigitsStream().read(0.0)
    assert digit is not None
    assert np.array_equal(prepare(digit, 8, 8), digit.image)


def test_digits_need_no_opencv() -> None:
    import subprocess

    code = (
        "import sys; from edge_app.sources import open_source;"
        "from edge_app.preprocess import prepare;"
        "prepare(open_source('test:digits').read(0.0), 8, 8); assert 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
