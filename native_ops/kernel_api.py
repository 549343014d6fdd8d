"""Single operators on numpy arrays, through the very kernels that a program runs.

For tests and for checks of an exporter. Arguments are those of the operators `mbq::*`: uint8 codes
and float32 streams [1, H, W, C], packed weights as one uint8 vector with its header. `isa` picks an
instruction set of `isa_available()`; without it the fastest one, or EDGE_NATIVE_ISA's, runs. They
raise ValueError for arguments that do not fit.
"""

from native_ops._native import conv2d_codes, conv2d_stream, head, quantize, stem

__all__ = ["conv2d_codes", "conv2d_stream", "head", "quantize", "stem"]
