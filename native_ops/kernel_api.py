"""The reference operators on numpy arrays: what every kernel matches bit for bit.

For tests and for checks of an exporter. Arguments are those of the operators `mbq::*`: uint8 codes
and float32 streams [1, H, W, C], packed weights as one uint8 vector with its header, scales and
biases as float32 [2, O]. A stream as input is quantised to clip(rint(x * in_scale + in_offset), 0,
in_max); for codes these three are not used. They raise ValueError for arguments that do not fit.
"""

from native_ops._native import (
    conv2d_codes,
    conv2d_stream,
    depthwise_codes,
    fit_channels,
    head,
    max_pool,
    stem,
)

__all__ = [
    "conv2d_codes",
    "conv2d_stream",
    "depthwise_codes",
    "fit_channels",
    "head",
    "max_pool",
    "stem",
]
