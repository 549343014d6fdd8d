"""The operations `mbq::*` for PyTorch: schemas, shapes for tracing, and implementations.

Importing this module registers them, each as a functional operator and as its `.out` form, which
is the one that an ExecuTorch program calls. The implementations are those of `arithmetic`, so that
a traced network computes exactly what the oracle does. Weights arrive packed (see `packing`).

Tensors are contiguous in logical [1, H, W, C] order.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import isqrt

import numpy as np
import torch
from torch import Tensor

from export import arithmetic, packing
from export.arithmetic import Codes

NAMESPACE = "mbq"

# Operator name -> arguments. The result is always one new tensor.
SCHEMAS = {
    "stem": "Tensor image, Tensor weight, Tensor scale, Tensor bias, Tensor pad_value,"
    " int stride, int pad",
    "quantize": "Tensor x, float scale, float offset, int qmin, int qmax",
    "conv2d_codes": "Tensor codes, Tensor weight, Tensor scale, Tensor bias,"
    " int stride, int pad, int qmin, int qmax",
    "conv2d_stream": "Tensor codes, Tensor weight, Tensor scale, Tensor bias, Tensor? residual,"
    " int stride, int pad, bool relu",
    "head": "Tensor[] streams, Tensor weight, Tensor bias",
}

_library = torch.library.Library(NAMESPACE, "DEF")


@lru_cache(maxsize=512)
def _unpack(blob: bytes) -> Codes:
    return packing.unpack(np.frombuffer(blob, dtype=np.uint8))


def _weight_codes(weight: Tensor) -> Codes:
    return _unpack(weight.detach().contiguous().numpy().tobytes())


def _stem(
    image: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    pad_value: Tensor,
    stride: int,
    pad: int,
) -> Tensor:
    arrays = [tensor.numpy() for tensor in (image, weight, scale, bias, pad_value)]
    return torch.from_numpy(arithmetic.stem(*arrays, stride=stride, pad=pad))


def _quantize(x: Tensor, scale: float, offset: float, qmin: int, qmax: int) -> Tensor:
    return torch.from_numpy(arithmetic.quantize(x.numpy(), scale, offset, qmin, qmax))


def _conv2d_codes(
    codes: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    stride: int,
    pad: int,
    qmin: int,
    qmax: int,
) -> Tensor:
    return torch.from_numpy(
        arithmetic.conv2d_codes(
            codes.numpy(),
            _weight_codes(weight),
            scale.numpy(),
            bias.numpy(),
            stride,
            pad,
            qmin,
            qmax,
        )
    )


def _conv2d_stream(
    codes: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    stride: int,
    pad: int,
    relu: bool,
) -> Tensor:
    return torch.from_numpy(
        arithmetic.conv2d_stream(
            codes.numpy(),
            _weight_codes(weight),
            scale.numpy(),
            bias.numpy(),
            None if residual is None else residual.numpy(),
            stride,
            pad,
            relu,
        )
    )


def _head(streams: Sequence[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    return torch.from_numpy(
        arithmetic.head([stream.numpy() for stream in streams], weight.numpy(), bias.numpy())
    )


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
    image: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    pad_value: Tensor,
    stride: int,
    pad: int,
) -> Tensor:
    shape = _convolved(image, weight.shape[:3], stride, pad)
    return image.new_empty(shape, dtype=torch.float32)


def _fake_quantize(x: Tensor, scale: float, offset: float, qmin: int, qmax: int) -> Tensor:
    return torch.empty_like(x, dtype=torch.uint8)


def _kernel_size(codes: Tensor, weight: Tensor, outputs: int) -> int:
    """Side of the square kernel in a packed weight, whose bytes tracing cannot read."""
    size = weight.shape[0] - packing.HEADER_BYTES
    one_tap = packing.payload_size((outputs, 1, 1, codes.shape[3]))
    taps = size // one_tap
    side = isqrt(taps)
    if size <= 0 or side * side * one_tap != size:
        raise ValueError(
            f"a packed weight of {weight.shape[0]} bytes does not hold a square kernel for"
            f" {codes.shape[3]} input and {outputs} output channels"
        )
    return side


def _fake_convolution(
    codes: Tensor, weight: Tensor, scale: Tensor, stride: int, pad: int, dtype: torch.dtype
) -> Tensor:
    outputs = scale.shape[0]
    side = _kernel_size(codes, weight, outputs)
    return codes.new_empty(_convolved(codes, (outputs, side, side), stride, pad), dtype=dtype)


def _fake_conv2d_codes(
    codes: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    stride: int,
    pad: int,
    qmin: int,
    qmax: int,
) -> Tensor:
    return _fake_convolution(codes, weight, scale, stride, pad, torch.uint8)


def _fake_conv2d_stream(
    codes: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    stride: int,
    pad: int,
    relu: bool,
) -> Tensor:
    result = _fake_convolution(codes, weight, scale, stride, pad, torch.float32)
    if residual is not None and residual.shape != result.shape:
        raise ValueError(
            f"residual {list(residual.shape)} and result {list(result.shape)} differ in shape"
        )
    return result


def _fake_head(streams: Sequence[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    return streams[0].new_empty([streams[0].shape[0], weight.shape[0]], dtype=torch.float32)


_IMPLEMENTATIONS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "stem": (_stem, _fake_stem),
    "quantize": (_quantize, _fake_quantize),
    "conv2d_codes": (_conv2d_codes, _fake_conv2d_codes),
    "conv2d_stream": (_conv2d_stream, _fake_conv2d_stream),
    "head": (_head, _fake_head),
}

for _name, _arguments in SCHEMAS.items():
    _function, _fake = _IMPLEMENTATIONS[_name]
    _library.define(f"{_name}({_arguments}) -> Tensor")
    _library.define(f"{_name}.out({_arguments}, *, Tensor(a!) out) -> Tensor(a!)")
    # Explicit: an implicit composite would be decomposed while tracing.
    _library.impl(_name, _function, "CompositeExplicitAutograd")
    _library.impl(f"{_name}.out", _out_variant(_function), "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{_name}", _fake, lib=_library)
