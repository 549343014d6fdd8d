"""The operations `mbq::*` for PyTorch: schemas, shapes for tracing, and implementations.

Importing this module registers them, each as a functional operator and as its `.out` form, which
is the one that an ExecuTorch program calls. The implementations are those of `arithmetic`, so that
a traced network computes exactly what the oracle does. Weights arrive packed (see `packing`).

Tensors are contiguous in logical [1, H, W, C] order.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export import arithmetic, packing
from export.arithmetic import Codes

NAMESPACE = "mbq"

# Operator name -> arguments. The result is always one new tensor.
#
# `affine` is float32 [2, O]: the scales, then the biases, of the accumulators. The input of a
# convolution is the float32 stream, quantised on the way in to clip(rint(x * in_scale + in_offset),
# 0, in_max), or uint8 codes, for which these three are not used.
#
# Few, merged arguments keep the program small: it describes every one of them for every level.
_CONVOLUTION = (
    "Tensor input, float in_scale, float in_offset, int in_max, Tensor weight, Tensor affine"
)
SCHEMAS = {
    "stem": "Tensor image, Tensor weight, Tensor affine, Tensor pad_value, int stride, int pad",
    "conv2d_codes": f"{_CONVOLUTION}, int stride, int pad, int qmin, int qmax",
    "conv2d_stream": f"{_CONVOLUTION}, Tensor? residual, int stride, int pad, bool relu",
    "depthwise_codes": f"{_CONVOLUTION}, int stride, int pad, int qmin, int qmax",
    "max_pool": "Tensor input, int kernel, int stride, int pad",
    "fit_channels": "Tensor stream, int channels",
    "head": "Tensor[] streams, Tensor weight, Tensor bias",
    "head_of_sum": "Tensor[] streams, Tensor weight, Tensor bias",
}

# PyTorch ships this class without annotations.
_library: Any = torch.library.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]


@lru_cache(maxsize=512)
def _unpack(blob: bytes, kind: int) -> Codes:
    return packing.unpack(np.frombuffer(blob, dtype=np.uint8), kind)


def _weight_codes(weight: Tensor, kind: int = packing.KIND_DENSE) -> Codes:
    return _unpack(weight.detach().contiguous().numpy().tobytes(), kind)


def _codes(x: Tensor, in_scale: float, in_offset: float, in_max: int) -> Codes:
    if x.dtype == torch.uint8:
        return x.numpy()
    return arithmetic.quantize(x.numpy(), in_scale, in_offset, 0, in_max)


def _stem(
    image: Tensor, weight: Tensor, affine: Tensor, pad_value: Tensor, stride: int, pad: int
) -> Tensor:
    scale, bias = affine.numpy()
    return torch.from_numpy(
        arithmetic.stem(image.numpy(), weight.numpy(), scale, bias, pad_value.numpy(), stride, pad)
    )


def _conv2d_codes(
    x: Tensor,
    in_scale: float,
    in_offset: float,
    in_max: int,
    weight: Tensor,
    affine: Tensor,
    stride: int,
    pad: int,
    qmin: int,
    qmax: int,
) -> Tensor:
    codes = _codes(x, in_scale, in_offset, in_max)
    scale, bias = affine.numpy()
    return torch.from_numpy(
        arithmetic.conv2d_codes(codes, _weight_codes(weight), scale, bias, stride, pad, qmin, qmax)
    )


def _conv2d_stream(
    x: Tensor,
    in_scale: float,
    in_offset: float,
    in_max: int,
    weight: Tensor,
    affine: Tensor,
    residual: Tensor | None,
    stride: int,
    pad: int,
    relu: bool,
) -> Tensor:
    codes = _codes(x, in_scale, in_offset, in_max)
    scale, bias = affine.numpy()
    added = None if residual is None else residual.numpy()
    return torch.from_numpy(
        arithmetic.conv2d_stream(
            codes, _weight_codes(weight), scale, bias, added, stride, pad, relu
        )
    )


def _depthwise_codes(
    x: Tensor,
    in_scale: float,
    in_offset: float,
    in_max: int,
    weight: Tensor,
    affine: Tensor,
    stride: int,
    pad: int,
    qmin: int,
    qmax: int,
) -> Tensor:
    codes = _codes(x, in_scale, in_offset, in_max)
    filters = _weight_codes(weight, packing.KIND_DEPTHWISE)
    scale, bias = affine.numpy()
    return torch.from_numpy(
        arithmetic.depthwise_codes(codes, filters, scale, bias, stride, pad, qmin, qmax)
    )


def _max_pool(x: Tensor, kernel: int, stride: int, pad: int) -> Tensor:
    return torch.from_numpy(arithmetic.max_pool(x.numpy(), kernel, stride, pad))


def _fit_channels(stream: Tensor, channels: int) -> Tensor:
    # A new tensor also where nothing is cut: an operator must not return its input.
    return torch.from_numpy(arithmetic.fit_channels(stream.numpy(), channels).copy())


def _head(streams: Sequence[Tensor], weight: Tensor, bias: Tensor, mean: bool = True) -> Tensor:
    values = [stream.numpy() for stream in streams]
    return torch.from_numpy(arithmetic.head(values, weight.numpy(), bias.numpy(), mean))


def _head_of_sum(streams: Sequence[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    return _head(streams, weight, bias, mean=False)


def _out_variant(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def write(*args: object, out: Tensor) -> Tensor:
        result = function(*args)
        out.resize_(result.shape)
        return out.copy_(result)

    return write


# Shapes and types, from which ExecuTorch plans the memory.


def _convolved(x: Tensor, weight_shape: Sequence[int], stride: int, pad: int) -> list[int]:
    outputs, kh, kw = weight_shape
    return [
        x.shape[0],
        arithmetic.output_size(x.shape[1], kh, stride, pad),
        arithmetic.output_size(x.shape[2], kw, stride, pad),
        outputs,
    ]


def _fake_stem(
    image: Tensor, weight: Tensor, affine: Tensor, pad_value: Tensor, stride: int, pad: int
) -> Tensor:
    shape = _convolved(image, weight.shape[:3], stride, pad)
    return image.new_empty(shape, dtype=torch.float32)


def _kernel_size(x: Tensor, weight: Tensor, outputs: int) -> int:
    """Side of the square kernel in a packed weight, whose bytes tracing cannot read."""
    size = weight.shape[0] - packing.HEADER_BYTES
    one_tap = packing.payload_size((outputs, 1, 1, x.shape[3]))
    taps = size // one_tap
    side = isqrt(taps)
    if size <= 0 or side * side * one_tap != size:
        raise ValueError(
            f"a packed weight of {weight.shape[0]} bytes does not hold a square kernel for"
            f" {x.shape[3]} input and {outputs} output channels"
        )
    return side


def _fake_convolution(
    x: Tensor, weight: Tensor, affine: Tensor, stride: int, pad: int, dtype: torch.dtype
) -> Tensor:
    outputs = affine.shape[1]
    side = _kernel_size(x, weight, outputs)
    return x.new_empty(_convolved(x, (outputs, side, side), stride, pad), dtype=dtype)


def _fake_conv2d_codes(
    x: Tensor,
    in_scale: float,
    in_offset: float,
    in_max: int,
    weight: Tensor,
    affine: Tensor,
    stride: int,
    pad: int,
    qmin: int,
    qmax: int,
) -> Tensor:
    return _fake_convolution(x, weight, affine, stride, pad, torch.uint8)


def _fake_conv2d_stream(
    x: Tensor,
    in_scale: float,
    in_offset: float,
    in_max: int,
    weight: Tensor,
    affine: Tensor,
    residual: Tensor | None,
    stride: int,
    pad: int,
    relu: bool,
) -> Tensor:
    result = _fake_convolution(x, weight, affine, stride, pad, torch.float32)
    if residual is not None and residual.shape != result.shape:
        raise ValueError(
            f"residual {list(residual.shape)} and result {list(result.shape)} differ in shape"
        )
    return result


def _fake_depthwise_codes(
    x: Tensor,
    in_scale: float,
    in_offset: float,
    in_max: int,
    weight: Tensor,
    affine: Tensor,
    stride: int,
    pad: int,
    qmin: int,
    qmax: int,
) -> Tensor:
    channels = x.shape[3]
    payload = weight.shape[0] - packing.HEADER_BYTES
    for side in packing.DEPTHWISE_SIDES:
        shape = (channels, side, side, 1)
        if payload == packing.payload_size(shape, packing.KIND_DEPTHWISE):
            return x.new_empty(
                _convolved(x, (channels, side, side), stride, pad), dtype=torch.uint8
            )
    raise ValueError(
        f"a packed weight of {weight.shape[0]} bytes does not hold a depthwise kernel for"
        f" {channels} channels"
    )


def _fake_max_pool(x: Tensor, kernel: int, stride: int, pad: int) -> Tensor:
    return x.new_empty(_convolved(x, (x.shape[3], kernel, kernel), stride, pad))


def _fake_fit_channels(stream: Tensor, channels: int) -> Tensor:
    return stream.new_empty([*stream.shape[:3], channels])


def _fake_head(streams: Sequence[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    return streams[0].new_empty([streams[0].shape[0], weight.shape[0]], dtype=torch.float32)


_IMPLEMENTATIONS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "stem": (_stem, _fake_stem),
    "conv2d_codes": (_conv2d_codes, _fake_conv2d_codes),
    "conv2d_stream": (_conv2d_stream, _fake_conv2d_stream),
    "depthwise_codes": (_depthwise_codes, _fake_depthwise_codes),
    "max_pool": (_max_pool, _fake_max_pool),
    "fit_channels": (_fit_channels, _fake_fit_channels),
    "head": (_head, _fake_head),
    "head_of_sum": (_head_of_sum, _fake_head),
}

for _name, _arguments in SCHEMAS.items():
    _function, _fake = _IMPLEMENTATIONS[_name]
    _library.define(f"{_name}({_arguments}) -> Tensor")
    _library.define(f"{_name}.out({_arguments}, *, Tensor(a!) out) -> Tensor(a!)")
    # Explicit: an implicit composite would be decomposed while tracing.
    _library.impl(_name, _function, "CompositeExplicitAutograd")
    _library.impl(f"{_name}.out", _out_variant(_function), "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{_name}", _fake, lib=_library)
