"""A smaller encoding of the same ExecuTorch program.

ExecuTorch's serialiser writes every table of its flatbuffer anew: the shape [16, 32, 32] once for
each tensor that has it, a weight's description once for each level that uses it, the number 1 once
for each stride. In a program of many levels over shared weights these descriptions come to nearly
half of the weights themselves. A flatbuffer may refer to one table from several places, so equal
tables, vectors and strings are written once here; a reader gets the very same program.

File layout (ExecuTorch's extended header): the flatbuffer with a 32-byte header after its first 8
bytes, then, aligned, the segments, whose offsets count from their own beginning.
"""

import struct
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program, convert_program

_IDENTIFIER = b"ET12"
_HEADER_AT = 8
# Magic, header length, bytes of the flatbuffer and header, where segments begin, their bytes.
_HEADER = struct.Struct("<4sIQQQ")
_HEADER_MAGIC = b"eh00"
_SEGMENT_ALIGNMENT = 128


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Builds a flatbuffer in which equal tables, vectors and strings are one.

    Two parts are equal if they were built by the same calls, with offsets of parts that are
    themselves shared. What was written of a repeated part is given up by moving the head back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._begin = 0
        self._content: list[Any] = []
        self._known: dict[tuple[Any, ...], int] = {}

    def StartObject(self, numfields: int) -> None:
        self._begin, self._content = self.Offset(), ["table", numfields]
        super().StartObject(numfields)

    def EndObject(self) -> int:
        known = self._known.get(tuple(self._content))
        if known is None:
            known = self._known[tuple(self._content)] = super().EndObject()
        else:
            self._give_up()
            self.current_vtable = None
        return known

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        self._begin, self._content = self.Offset(), ["vector", elemSize, numElems, alignment]
        started: int = super().StartVector(elemSize, numElems, alignment)
        return started

    def EndVector(self, numElems: int | None = None) -> int:
        # Strings end here too. Other bytes that did not come through Prepend are not known.
        if self._content[0] == "vector" and len(self._content) != 4 + self._content[2]:
            raise ValueError(
                "a vector of bytes in the flatbuffer, which this encoding cannot share"
            )
        known = self._known.get(tuple(self._content))
        if known is None:
            known = self._known[tuple(self._content)] = super().EndVector()
        else:
            self._give_up()
            self.vectorNumElems = None
        return known

    def CreateString(self, s: str | bytes, encoding: str = "utf-8", errors: str = "strict") -> int:
        self._begin, self._content = self.Offset(), ["string", s]
        created: int = super().CreateString(s, encoding, errors)
        return created

    def Prepend(self, flags: Any, off: Any) -> None:
        # Zero and minus zero are equal but not the same bytes; nor are 1, 1.0 and True.
        self._content.append((flags.__name__, repr(off)))
        super().Prepend(flags, off)

    def PrependUOffsetTRelative(self, off: int) -> None:
        self._content.append(("offset", off))
        super().PrependUOffsetTRelative(off)

    def Slot(self, slotnum: int) -> None:
        self._content.append(("slot", slotnum))
        super().Slot(slotnum)

    def _give_up(self) -> None:
        self.head = len(self.Bytes) - self._begin
        self.nested = False


def compact(program: bytes) -> bytes:
    """The same program with equal parts of its flatbuffer written once.

    Args:
        program: what ExecuTorch's `to_executorch` serialised, constants in a segment.

    Raises:
        ValueError: not such a program, or one with data inside its flatbuffer.
    """
    if program[4:_HEADER_AT] != _IDENTIFIER:
        raise ValueError(f"not an ExecuTorch program of schema {_IDENTIFIER.decode()}")
    magic, _, _, base, size = _HEADER.unpack_from(program, _HEADER_AT)
    if magic != _HEADER_MAGIC or base + size > len(program):
        raise ValueError("an ExecuTorch program without segments")
    tree = _flatbuffer_to_program(program)
    if tree.constant_buffer or tree.backend_delegate_data:
        # Their alignment would have to be kept, and nothing here puts data there.
        raise ValueError("an ExecuTorch program with constants or delegates in its flatbuffer")
    builder = _SharingBuilder()
    builder.Finish(convert_program(tree).Pack(builder), file_identifier=_IDENTIFIER)
    flatbuffer = bytes(builder.Output())
    whole = len(flatbuffer) + _HEADER.size
    new_base = -(-whole // _SEGMENT_ALIGNMENT) * _SEGMENT_ALIGNMENT
    # The first field is the root's offset from the file's beginning, which the header pushes away.
    # The header's length is a multiple of 8, the largest alignment inside the flatbuffer.
    root = int.from_bytes(flatbuffer[:4], "little") + _HEADER.size
    return b"".join(
        (
            root.to_bytes(4, "little"),
            _IDENTIFIER,
            _HEADER.pack(_HEADER_MAGIC, _HEADER.size, whole, new_base, size),
            flatbuffer[_HEADER_AT:],
            bytes(new_base - whole),
            program[base : base + size],
        )
    )
