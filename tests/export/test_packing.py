"""Packed weights: the layout byte by byte, the way back, and every kind of damage."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from export import packing

CODES = np.random.default_rng(0).integers(0, 4, (16, 3, 3, 8), dtype=np.uint8)


@given(
    st.tuples(*(st.integers(1, limit) for limit in (40, 5, 5, 20))).flatmap(
        lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 3))
    )
)
def test_unpack_inverts_pack(codes: np.ndarray) -> None:
    blob = packing.pack(codes)
    assert blob.size == packing.HEADER_BYTES + packing.payload_size(codes.shape)
    np.testing.assert_array_equal(packing.unpack(blob), codes)


@given(
    blocks=st.integers(1, 4), groups=st.integers(1, 8), height=st.integers(1, 5),
    width=st.integers(1, 5),
)  # fmt: skip
def test_two_bits_a_weight_where_channels_fill_the_blocks(
    blocks: int, groups: int, height: int, width: int
) -> None:
    shape = (16 * blocks, height, width, 4 * groups)
    codes = np.full(shape, 3, dtype=np.uint8)
    assert packing.pack(codes).size - packing.HEADER_BYTES == codes.size // 4


def test_layout_is_the_documented_one() -> None:
    """An independent reading: block of 16 outputs, group of 4 inputs, output, code."""
    outputs, height, width, inputs = 20, 3, 2, 6
    codes = np.random.default_rng(1).integers(
        0, 4, (outputs, height, width, inputs), dtype=np.uint8
    )
    payload = packing.pack(codes)[packing.HEADER_BYTES :]
    position = 0
    for block in range(0, 32, 16):
        for y in range(height):
            for x in range(width):
                for group in range(0, 8, 4):
                    for output in range(block, block + 16):
                        for k in range(4):
                            inside = output < outputs and group + k < inputs
                            expected = codes[output, y, x, group + k] if inside else 0
                            assert payload[position] >> (2 * k) & 3 == expected
                        position += 1
    assert position == len(payload)


@given(
    st.tuples(st.integers(1, 40), st.sampled_from(packing.DEPTHWISE_SIDES)).flatmap(
        lambda size: arrays(np.uint8, (size[0], size[1], size[1], 1), elements=st.integers(0, 3))
    )
)
def test_depthwise_weights_come_back_and_take_the_taps_for_inputs(codes: np.ndarray) -> None:
    blob = packing.pack(codes, packing.KIND_DEPTHWISE)
    np.testing.assert_array_equal(packing.unpack(blob, packing.KIND_DEPTHWISE), codes)
    channels, side, _, _ = codes.shape
    as_inputs = packing.pack(codes.reshape(channels, 1, 1, side * side))
    assert blob[64:].tobytes() == as_inputs[64:].tobytes()
    header = struct.unpack_from("<7I", blob, 8)
    assert header == (1, 1, channels, 1, side, side, len(blob) - 64)
    with pytest.raises(packing.PackingError, match="kind 1 instead of 0"):
        packing.unpack(blob)


@pytest.mark.parametrize("shape", [(4, 3, 3, 2), (4, 3, 1, 1), (4, 7, 7, 1), (4, 2, 2, 1)])
def test_other_shapes_are_no_depthwise_weights(shape: tuple[int, ...]) -> None:
    with pytest.raises(packing.PackingError, match="side 1, 3, 5"):
        packing.pack(np.zeros(shape, np.uint8), packing.KIND_DEPTHWISE)


def test_header_is_the_documented_one() -> None:
    blob = packing.pack(CODES).tobytes()
    assert blob[:8] == b"MBQ2BIT\0"
    assert struct.unpack_from("<8I", blob, 8) == (1, 0, 16, 8, 3, 3, 288, zlib.crc32(blob[64:]))
    assert blob[40:64] == bytes(24)


def _field(index: int, value: int) -> bytes:
    blob = bytearray(packing.pack(CODES).tobytes())
    struct.pack_into("<I", blob, 8 + 4 * index, value)
    return bytes(blob)


def _byte(position: int) -> bytes:
    blob = bytearray(packing.pack(CODES).tobytes())
    blob[position] ^= 1
    return bytes(blob)


def _padding_code() -> bytes:
    blob = bytearray(packing.pack(CODES[:15]).tobytes())
    blob[packing.HEADER_BYTES + 15] = 1
    struct.pack_into("<I", blob, 8 + 4 * 7, zlib.crc32(blob[packing.HEADER_BYTES :]))
    return bytes(blob)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        pytest.param(_byte(0), "magic", id="magic"),
        pytest.param(_field(0, 2), "version 2", id="version"),
        pytest.param(_field(1, 1), "kind 1", id="kind"),
        pytest.param(_field(2, 0), "empty shape", id="no outputs"),
        pytest.param(_field(2, 32), "takes 576 payload bytes", id="outputs"),
        pytest.param(_field(3, 4), "takes 144 payload bytes", id="inputs"),
        pytest.param(_field(4, 1), "takes 96 payload bytes", id="height"),
        pytest.param(_field(5, 2**32 - 1), "payload bytes", id="width"),
        pytest.param(_field(6, 100), "its header says 100", id="payload size"),
        pytest.param(_field(7, 0), "CRC-32", id="checksum"),
        pytest.param(_byte(41), "reserved header bytes", id="reserved"),
        pytest.param(_byte(100), "CRC-32", id="payload"),
        pytest.param(_byte(0)[:63], "starts with 64 bytes; got 63", id="too short"),
        pytest.param(_field(0, 1)[:-1], "351 are there", id="cut"),
        pytest.param(_field(0, 1) + b"\0", "353 are there", id="longer"),
        pytest.param(_padding_code(), "padding codes", id="padding"),
    ],
)
def test_damage_is_refused(blob: bytes, message: str) -> None:
    with pytest.raises(packing.PackingError, match=message):
        packing.unpack(np.frombuffer(blob, dtype=np.uint8))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((1, 1, 1), np.uint8), r"not uint8 \[1, 1, 1\]"),
        (np.zeros((1, 1, 1, 1), np.int8), "not int8"),
        (np.zeros((1, 0, 1, 1), np.uint8), "empty"),
        (np.full((1, 1, 1, 1), 4, np.uint8), "found 4"),
    ],
)
def test_only_two_bit_codes_are_packed(codes: np.ndarray, message: str) -> None:
    with pytest.raises(packing.PackingError, match=message):
        packing.pack(codes)
