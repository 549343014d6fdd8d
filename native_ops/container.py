"""The model file: an ExecuTorch program followed by a trailer that proves it is whole.

A flatbuffer says little about damage: a truncated or altered program may be found out late, in the
middle of an inference, or not at all. The trailer makes that a question of one hash at load time.

Trailer, 64 bytes, little end first, after the program's last byte:

    offset  size  field
         0     8  magic, "MBQPTE1" and a zero byte
         8     4  version of this layout
        12     4  zero
        16     8  length of the program in bytes
        24     8  zero
        32    32  SHA-256 of the program and of bytes 0..31 of the trailer

Tools that read plain ExecuTorch programs still can: they ignore what follows the program.
"""

import hashlib
import struct

MAGIC = b"MBQPTE1\0"
VERSION = 1
TRAILER_BYTES = 64
_FIELDS = struct.Struct("<8sII QQ")
# Bytes 4..7 of a program, from the ExecuTorch schema's file identifier "ET12".
_PROGRAM_IDENTIFIER = b"ET"


class ContainerError(ValueError):
    """Bytes that are not a whole model file; says what is wrong and what to do."""


def seal(program: bytes) -> bytes:
    """The contents of a model file that holds this ExecuTorch program."""
    fields = _FIELDS.pack(MAGIC, VERSION, 0, len(program), 0)
    digest = hashlib.sha256(program)
    digest.update(fields)
    return program + fields + digest.digest()


def verify(contents: bytes | memoryview) -> memoryview:
    """The program within a model file's contents.

    Raises:
        ContainerError: not a model file, one of another version, or one that was cut or changed.
    """
    view = memoryview(contents)
    if len(view) <= TRAILER_BYTES:
        raise ContainerError(
            f"has {len(view)} bytes, too few for a model; copy or export the file again"
        )
    trailer = view[-TRAILER_BYTES:]
    magic, version, reserved, length, more_reserved = _FIELDS.unpack(trailer[: _FIELDS.size])
    if magic != MAGIC:
        if bytes(view[4:6]) == _PROGRAM_IDENTIFIER:
            raise ContainerError(
                "is an ExecuTorch program without the trailer of a model file: it was cut short,"
                " or another tool made it; copy it again, or make one with `python -m export`"
            )
        raise ContainerError("is not a model file; make one with `python -m export`")
    if version != VERSION:
        raise ContainerError(
            f"has layout version {version}, this build reads version {VERSION};"
            " export the model again or install the edge-app that it was made for"
        )
    program = view[:-TRAILER_BYTES]
    digest = hashlib.sha256(program)
    digest.update(trailer[: _FIELDS.size])
    intact = digest.digest() == bytes(trailer[_FIELDS.size :])
    if reserved or more_reserved or length != len(program) or not intact:
        raise ContainerError("was changed or damaged after export; copy or export it again")
    return program
