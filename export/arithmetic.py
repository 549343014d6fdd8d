"""The operations of the integer network, in numpy: what every kernel has to reproduce.

Activations are codes 0 .. 2^bits - 1, uint8, in [N, H, W, C] order, padded with code 0; the weight
of code q is 2q - 3. Accumulators are exact integers. What follows an accumulator is float32 in one
fixed order: converted (round to nearest even), multiplied, then added, each step rounded on its
own; a fused multiply-add would give other codes. Codes are rounded half to even and then clipped.

Every function takes a batch of any size; a device runs them with N = 1.

Arithmetic: Zhong et al., "MBQuant", Pattern Recognition 158 (2025), equations of the weight and
activation quantisers, with the products of codes taken out of the sum.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_Number = TypeVar("_Number", np.uint8, np.float32)

# Integers up to here are exact in float32, and so is every partial sum that stays below it.
_FLOAT32_EXACT = 2**24
# Partial sums of a logit.
_HEAD_LANES = 16


def output_size(size: int, kernel: int, stride: int, pad: int) -> int:
    """Height or width of a convolution's output."""
    return (size + 2 * pad - kernel) // stride + 1


def _windows(padded: npt.NDArray[_Number], kh: int, kw: int, stride: int) -> npt.NDArray[_Number]:
    """[N, Ho, Wo, C, kh, kw]: the window of every output pixel, a view."""
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(1, 2))
    return windows[:, ::stride, ::stride]


def _patches(padded: Codes, kh: int, kw: int, stride: int) -> Codes:
    """[N, Ho, Wo, kh*kw*C]: the inputs of every output pixel, channel fastest."""
    windows = _windows(padded, kh, kw, stride).transpose(0, 1, 2, 4, 5, 3)
    return windows.reshape(*windows.shape[:3], -1)


def accumulate(
    codes: Codes, weight_codes: Codes, stride: int, pad: int
) -> npt.NDArray[np.float32] | npt.NDArray[np.float64]:
    """Exact integer accumulators of a 2-bit convolution, held in a float type without rounding.

    Args:
        codes: uint8 [N, H, W, I].
        weight_codes: uint8 [O, kh, kw, I], 0..3.

    Returns:
        [N, Ho, Wo, O], integers. A matrix product of small integers is exact in float32 while the
        sum of magnitudes stays below 2^24, and several times as fast as an integer one.
    """
    outputs, kh, kw, inputs = weight_codes.shape
    exact: type = np.float32 if 3 * 255 * kh * kw * inputs < _FLOAT32_EXACT else np.float64
    weight: npt.NDArray[Any] = (2 * weight_codes.reshape(outputs, -1).astype(np.int8) - 3).astype(
        exact
    )
    padded = np.pad(codes, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    accumulators: npt.NDArray[np.float32] | npt.NDArray[np.float64] = (
        _patches(padded, kh, kw, stride).astype(exact) @ weight.T
    )
    return accumulators


def accumulate_depthwise(codes: Codes, weight_codes: Codes, stride: int, pad: int) -> Floats:
    """Exact integer accumulators of a 2-bit depthwise convolution: each channel with its own filter.

    Args:
        codes: uint8 [N, H, W, C].
        weight_codes: uint8 [C, kh, kw, 1], 0..3.

    Returns:
        float32 [N, Ho, Wo, C], integers.
    """
    _, kh, kw, _ = weight_codes.shape
    windows = _windows(np.pad(codes, ((0, 0), (pad, pad), (pad, pad), (0, 0))), kh, kw, stride)
    weight = 2 * weight_codes[..., 0].astype(np.float32) - 3
    accumulators = np.zeros(windows.shape[:4], dtype=np.float32)
    for ky in range(kh):
        for kx in range(kw):
            accumulators += windows[..., ky, kx] * weight[:, ky, kx]
    return accumulators


def _to_codes(values: Floats, lowest: int, highest: int) -> Codes:
    # fmax and fmin return the other operand where one is NaN: NaN becomes the lowest code.
    clipped = np.fmin(np.fmax(np.rint(values), np.float32(lowest)), np.float32(highest))
    return clipped.astype(np.uint8)


def stem(
    image: npt.NDArray[np.uint8],
    weight: npt.NDArray[np.int16],
    scale: Floats,
    bias: Floats,
    pad_value: npt.NDArray[np.uint8],
    stride: int,
    pad: int,
) -> Floats:
    """The first convolution, on pixels: max(acc * scale + bias, 0).

    Args:
        image: uint8 [N, H, W, 3].
        weight: int16 [O, kh, kw, 3], with sums that fit int32 for every image.
        scale, bias: float32 [O].
        pad_value: uint8 [3], the pixel value outside the image.

    Returns:
        float32 [N, Ho, Wo, O].
    """
    outputs, kh, kw, _ = weight.shape
    n, height, width, channels = image.shape
    padded = np.empty((n, height + 2 * pad, width + 2 * pad, channels), dtype=np.uint8)
    padded[...] = pad_value
    padded[:, pad : pad + height, pad : pad + width] = image
    patches = _patches(padded, kh, kw, stride).astype(np.float64)
    accumulators = patches @ weight.reshape(outputs, -1).T.astype(np.float64)
    values = accumulators.astype(np.float32) * scale + bias
    rectified: Floats = np.maximum(values, np.float32(0))
    return rectified


def quantize(x: Floats, scale: float, offset: float, lowest: int, highest: int) -> Codes:
    """Codes of the residual stream: clip(rint(x * scale + offset), lowest, highest).

    Args:
        x: float32 [N, H, W, C]. NaN becomes `lowest`.
        scale, offset: rounded to float32 before use.

    Returns:
        uint8, shape of x.
    """
    return _to_codes(x * np.float32(scale) + np.float32(offset), lowest, highest)


def conv2d_codes(
    codes: Codes,
    weight_codes: Codes,
    scale: Floats,
    bias: Floats,
    stride: int,
    pad: int,
    lowest: int,
    highest: int,
) -> Codes:
    """A convolution whose output is quantised at once: clip(rint(acc * scale + bias)).

    Args:
        codes: uint8 [N, H, W, I].
        weight_codes: uint8 [O, kh, kw, I], 0..3.
        scale, bias: float32 [O].

    Returns:
        uint8 [N, Ho, Wo, O] within lowest .. highest.
    """
    accumulators = accumulate(codes, weight_codes, stride, pad).astype(np.float32)
    return _to_codes(accumulators * scale + bias, lowest, highest)


def conv2d_stream(
    codes: Codes,
    weight_codes: Codes,
    scale: Floats,
    bias: Floats,
    residual: Floats | None,
    stride: int,
    pad: int,
    relu: bool,
) -> Floats:
    """A convolution that writes the residual stream: acc * scale + bias (+ residual) (ReLU).

    Args:
        codes: uint8 [N, H, W, I].
        weight_codes: uint8 [O, kh, kw, I], 0..3.
        scale, bias: float32 [O].
        residual: float32 [N, Ho, Wo, O] or None.

    Returns:
        float32 [N, Ho, Wo, O].
    """
    values = accumulate(codes, weight_codes, stride, pad).astype(np.float32) * scale + bias
    if residual is not None:
        values = values + residual
    return np.maximum(values, np.float32(0)) if relu else values


def depthwise_codes(
    codes: Codes,
    weight_codes: Codes,
    scale: Floats,
    bias: Floats,
    stride: int,
    pad: int,
    lowest: int,
    highest: int,
) -> Codes:
    """A depthwise convolution whose output is quantised at once: clip(rint(acc * scale + bias)).

    Args:
        codes: uint8 [N, H, W, C].
        weight_codes: uint8 [C, kh, kw, 1], 0..3.
        scale, bias: float32 [C].

    Returns:
        uint8 [N, Ho, Wo, C] within lowest .. highest.
    """
    accumulators = accumulate_depthwise(codes, weight_codes, stride, pad)
    return _to_codes(accumulators * scale + bias, lowest, highest)


def max_pool(x: npt.NDArray[_Number], kernel: int, stride: int, pad: int) -> npt.NDArray[_Number]:
    """The largest value of every window; what lies outside the image never wins.

    Args:
        x: codes or the stream, [N, H, W, C], without NaN.
        pad: at most half of `kernel`, so that every window holds a pixel.

    Returns:
        the type of x, [N, Ho, Wo, C].
    """
    lowest: Any = 0 if x.dtype == np.uint8 else -np.inf
    border = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    padded = np.pad(x, border, constant_values=lowest)
    largest: npt.NDArray[_Number] = _windows(padded, kernel, kernel, stride).max(axis=(4, 5))
    return largest


def fit_channels(stream: Floats, channels: int) -> Floats:
    """The first `channels` channels of a stream [N, H, W, C], with zeros where it has fewer."""
    missing = channels - stream.shape[3]
    if missing <= 0:
        return np.ascontiguousarray(stream[..., :channels])
    return np.pad(stream, ((0, 0), (0, 0), (0, 0), (0, missing)))


def head(streams: Sequence[Floats], weight: Floats, bias: Floats, mean: bool = True) -> Floats:
    """Global average pooling, the join of the branches and the linear classifier.

    Sums run in one fixed order: over pixels in theirs; over channels in 16 partial sums, of which
    number i adds up channels i, i + 16 and so on, and which are then added up in their order.

    Args:
        streams: one float32 [N, H, W, C] for each branch.
        weight: float32 [classes, C]; bias: float32 [classes].
        mean: whether the branches are joined by their mean; else by their sum.

    Returns:
        logits, float32 [N, classes].
    """
    images, height, width, channels = streams[0].shape
    joined = np.zeros((images, channels), dtype=np.float32)
    for stream in streams:
        total = np.zeros_like(joined)
        for pixel in stream.reshape(images, height * width, channels).transpose(1, 0, 2):
            total += pixel
        joined += total * (np.float32(1) / np.float32(height * width))
    if mean:
        joined *= np.float32(1) / np.float32(len(streams))
    groups = -(-channels // _HEAD_LANES)
    lanes = ((0, 0), (0, groups * _HEAD_LANES - channels))
    features = np.pad(joined, lanes).reshape(images, 1, groups, _HEAD_LANES)
    filters = np.pad(weight, lanes).reshape(1, len(weight), groups, _HEAD_LANES)
    partial = np.zeros((images, len(weight), _HEAD_LANES), dtype=np.float32)
    for group in range(groups):
        partial += features[:, :, group] * filters[:, :, group]
    logits = np.zeros((images, len(weight)), dtype=np.float32)
    for lane in range(_HEAD_LANES):
        logits += partial[..., lane]
    return logits + bias
