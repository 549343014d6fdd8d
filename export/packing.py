"""Two-bit weight codes, four a byte, behind a 64-byte header.

Header, little endian: magic `MBQ2BIT\\0`, then eight uint32: version, kind, output channels, input
channels, kernel height, kernel width, payload bytes and CRC-32 (zlib) of the payload; zeros up to
byte 64.

Payload: output channels in blocks of 16; within a block, groups of four consecutive k (k runs over
kernel row, kernel column and input channel, input channel fastest, padded to a multiple of 4);
within a group one byte for each of the 16 output channels, which holds its four codes with the
first in the lowest bits. Sixteen consecutive bytes therefore expand to the 64 bytes of one
u8 x s8 dot-product operand. Codes added to fill blocks and groups are 0.

A depthwise convolution (kind 1) has one input channel for each output channel and says 1 in its
header. The taps of its kernel, row by row, take the place of the input channels of a 1x1 kernel.
"""

import struct
import zlib

import numpy as np
import numpy.typing as npt

MAGIC = b"MBQ2BIT\0"
VERSION = 1
KIND_DENSE = 0
KIND_DEPTHWISE = 1
_KINDS = {KIND_DENSE: "dense", KIND_DEPTHWISE: "depthwise"}
# Square kernels of these sides: their sums fit int16, and their payload's size tells the side.
DEPTHWISE_SIDES = (1, 3, 5)
HEADER_BYTES = 64
OUTPUT_BLOCK = 16
CODES_PER_BYTE = 4

_FIELDS = struct.Struct("<8s8I")
_SHIFTS = np.array([0, 2, 4, 6], dtype=np.uint8)


class PackingError(ValueError):
    """A weight blob that cannot be made or read."""


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _laid_out(shape: tuple[int, int, int, int], kind: int) -> tuple[int, int, int, int]:
    """The shape whose order the payload has."""
    outputs, height, width, inputs = shape
    if kind == KIND_DENSE:
        return shape
    if inputs != 1 or height != width or height not in DEPTHWISE_SIDES:
        sides = ", ".join(map(str, DEPTHWISE_SIDES))
        raise PackingError(
            f"a depthwise weight takes one input and a square kernel of side {sides};"
            f" this one has the shape {list(shape)}"
        )
    return outputs, 1, 1, height * width


def payload_size(shape: tuple[int, int, int, int], kind: int = KIND_DENSE) -> int:
    """Payload bytes for codes of shape [O, kh, kw, I].

    Exactly O*kh*kw*I/4 for a dense convolution when O is a multiple of 16 and I of 4.

    Raises:
        PackingError: no shape of a depthwise convolution.
    """
    outputs, height, width, inputs = _laid_out(shape, kind)
    k = height * width * _round_up(inputs, CODES_PER_BYTE)
    return _round_up(outputs, OUTPUT_BLOCK) * k // CODES_PER_BYTE


def pack(codes: npt.NDArray[np.uint8], kind: int = KIND_DENSE) -> npt.NDArray[np.uint8]:
    """Pack weight codes.

    Args:
        codes: uint8 [O, kh, kw, I], every value in 0..3 (integer weight 2 * code - 3).
        kind: KIND_DENSE, or KIND_DEPTHWISE for codes [C, kh, kw, 1].

    Returns:
        uint8 [64 + payload bytes].

    Raises:
        PackingError: another type, rank or shape, an empty dimension, or a code above 3.
    """
    if codes.dtype != np.uint8 or codes.ndim != 4:
        raise PackingError(
            f"weight codes must be uint8 [O, kh, kw, I], not {codes.dtype} {list(codes.shape)}"
        )
    if 0 in codes.shape:
        raise PackingError(f"weight codes of shape {list(codes.shape)} are empty")
    if codes.max() > 3:
        raise PackingError(f"weight codes take two bits (0..3); found {codes.max()}")
    ordered = codes.reshape(_laid_out(codes.shape, kind))
    outputs, height, width, inputs = ordered.shape
    shape = (_round_up(outputs, OUTPUT_BLOCK), height, width, _round_up(inputs, CODES_PER_BYTE))
    padded = np.zeros(shape, dtype=np.uint8)
    padded[:outputs, :, :, :inputs] = ordered
    groups = padded.reshape(shape[0] // OUTPUT_BLOCK, OUTPUT_BLOCK, -1, CODES_PER_BYTE)
    # The four codes occupy disjoint bits, so their sum is their bitwise or.
    packed = np.left_shift(groups, _SHIFTS).sum(axis=-1, dtype=np.uint8)
    payload = np.ascontiguousarray(packed.transpose(0, 2, 1)).tobytes()
    outputs, height, width, inputs = codes.shape
    header = _FIELDS.pack(
        MAGIC,
        VERSION,
        kind,
        outputs,
        inputs,
        height,
        width,
        len(payload),
        zlib.crc32(payload),
    ).ljust(HEADER_BYTES, b"\0")
    return np.frombuffer(header + payload, dtype=np.uint8).copy()


def kernel_size(blob: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Height and width of the kernel that a packed weight says it holds."""
    height, width = _FIELDS.unpack_from(blob.tobytes())[5:7]
    return int(height), int(width)


def unpack(blob: npt.NDArray[np.uint8], kind: int = KIND_DENSE) -> npt.NDArray[np.uint8]:
    """The weight codes of a blob: uint8 [O, kh, kw, I]; the inverse of `pack`.

    Args:
        kind: that the blob has to have.

    Raises:
        PackingError: what is wrong with the header, the sizes, the checksum or the padding.
    """
    if blob.dtype != np.uint8 or blob.ndim != 1:
        raise PackingError(
            f"a packed weight is uint8 with one dimension, not {blob.dtype} {list(blob.shape)}"
        )
    data = blob.tobytes()
    if len(data) < HEADER_BYTES:
        raise PackingError(f"a packed weight starts with {HEADER_BYTES} bytes; got {len(data)}")
    magic, version, found, outputs, inputs, height, width, size, checksum = _FIELDS.unpack_from(
        data
    )
    if magic != MAGIC:
        raise PackingError(f"not a packed weight: magic {magic!r} instead of {MAGIC!r}")
    if version != VERSION:
        raise PackingError(f"packed weight of version {version}; this code reads {VERSION}")
    if found != kind:
        raise PackingError(f"packed weight of kind {found} instead of {kind} ({_KINDS[kind]})")
    shape = (outputs, height, width, inputs)
    if 0 in shape:
        raise PackingError(f"packed weight of empty shape {list(shape)}")
    if size != payload_size(shape, kind):
        raise PackingError(
            f"packed weight of shape {list(shape)} takes {payload_size(shape, kind)} payload bytes;"
            f" its header says {size}"
        )
    if len(data) != HEADER_BYTES + size:
        raise PackingError(
            f"packed weight of {HEADER_BYTES + size} bytes by its header, but {len(data)} are there"
        )
    if any(data[_FIELDS.size : HEADER_BYTES]):
        raise PackingError("packed weight whose reserved header bytes are not zero")
    payload = data[HEADER_BYTES:]
    if zlib.crc32(payload) != checksum:
        raise PackingError("packed weight with a wrong CRC-32: its bytes were changed")
    blocks = _round_up(outputs, OUTPUT_BLOCK) // OUTPUT_BLOCK
    packed = np.frombuffer(payload, dtype=np.uint8).reshape(blocks, -1, OUTPUT_BLOCK)
    groups = np.right_shift(packed.transpose(0, 2, 1)[..., None], _SHIFTS) & 3
    _, rows, columns, filled = _laid_out(shape, kind)
    padded = groups.reshape(blocks * OUTPUT_BLOCK, rows, columns, -1)
    codes: npt.NDArray[np.uint8] = np.ascontiguousarray(padded[:outputs, :, :, :filled])
    if np.count_nonzero(padded) != np.count_nonzero(codes):
        raise PackingError("packed weight whose padding codes are not zero")
    return codes.reshape(shape)
