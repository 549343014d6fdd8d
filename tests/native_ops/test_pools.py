"""Max pools and channel counts against the oracle: the same code on every instruction set."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import arithmetic
from native_ops import kernels


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_max_pool(data: st.DataObject) -> None:
    """Of codes and of the stream, against windows that are cut at the image's border."""
    kernel = data.draw(st.integers(1, 4))
    pad = data.draw(st.integers(0, kernel // 2))
    stride = data.draw(st.integers(1, 3))
    least = max(1, kernel - 2 * pad)
    height, width = data.draw(st.integers(least, 9)), data.draw(st.integers(least, 9))
    channels = data.draw(st.integers(1, 40))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = random.normal(-3, 1, (1, height, width, channels)).astype(np.float32)
    codes = random.integers(0, 256, values.shape, dtype=np.uint8)
    for x in (values, codes):
        found = kernels.max_pool(x, kernel, stride, pad)
        assert found.dtype == x.dtype
        rows, columns = ((n + 2 * pad - kernel) // stride + 1 for n in (height, width))
        assert found.shape == (1, rows, columns, channels)
        for y, column in product(range(rows), range(columns)):
            top, left = y * stride - pad, column * stride - pad
            window = x[0, max(top, 0) : top + kernel, max(left, 0) : left + kernel]
            np.testing.assert_array_equal(found[0, y, column], window.max(axis=(0, 1)))
        np.testing.assert_array_equal(found, arithmetic.max_pool(x, kernel, stride, pad))


@pytest.mark.parametrize(
    ("shape", "window", "message"),
    [
        ((1, 4, 4, 3), (2, 1, 2), "window"),
        ((1, 4, 4, 3), (0, 1, 0), "window"),
        ((1, 4, 4, 3), (2, 0, 0), "window"),
        ((1, 2, 4, 3), (3, 1, 0), "larger"),
        ((2, 4, 4, 3), (2, 2, 0), "one image"),
        ((1, 4, 4, 0), (2, 2, 0), "empty"),
    ],
)
def test_bad_windows_are_errors(
    shape: tuple[int, ...], window: tuple[int, int, int], message: str
) -> None:
    for kind in (np.uint8, np.float32):
        with pytest.raises(ValueError, match=message):
            kernels.max_pool(np.zeros(shape, kind), *window)


@pytest.mark.parametrize("channels", [1, 5, 8, 13])
def test_channels_are_cut_or_filled_with_zeros(channels: int) -> None:
    stream = np.random.default_rng(1).normal(0, 1, (1, 3, 4, 8)).astype(np.float32)
    found = kernels.fit_channels(stream, channels)
    kept = min(channels, 8)
    np.testing.assert_array_equal(found[..., :kept], stream[..., :kept])
    assert not found[..., kept:].any()
    np.testing.assert_array_equal(found, arithmetic.fit_channels(stream, channels))
    with pytest.raises(ValueError, match="out of range"):
        kernels.fit_channels(stream, 0)
