"""Reading small files below a root directory, with the errors the kernel gives."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

ATTRIBUTE_BYTES = 4096
"""The kernel never gives more than a page for one attribute."""


@dataclass(frozen=True)
class Attribute:
    """Content of one file, or the name of the error (``ENODATA``, ...) that came instead."""

    text: str | None
    error: str = ""

    def number(self, scale: float = 1.0) -> float | None:
        """The content as a number times ``scale``; None if it is none."""
        if self.text is None:
            return None
        try:
            return int(self.text) * scale
        except ValueError:
            return None

    @property
    def problem(self) -> str:
        """Why ``number`` gave None."""
        return self.error or f"content is {self.text!r}, not a whole number"


class SysRoot:
    """Files of /sys and /proc, or of a copy of them below ``root``.

    Plain system calls instead of file objects: some drivers answer EAGAIN, which Python's
    buffered files turn into None or TypeError instead of an OSError.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    @property
    def is_this_machine(self) -> bool:
        return self.root == Path("/")

    def read(self, path: str) -> Attribute:
        """The stripped text of ``path`` (relative to the root). Never raises."""
        try:
            return Attribute(self.read_bytes(path).decode("utf-8", "replace").strip("\0 \t\n"))
        except OSError as error:
            return Attribute(None, errno.errorcode.get(error.errno or 0, str(error)))

    def read_bytes(self, path: str) -> bytes:
        """The first page of a file; OSError as it comes. The only place that reads a file."""
        descriptor = os.open(self.root / path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.pread(descriptor, ATTRIBUTE_BYTES, 0)
        finally:
            os.close(descriptor)

    def entries(self, path: str) -> list[str]:
        """Names in a directory in natural order; empty if it is not there."""
        try:
            names = os.listdir(self.root / path)
        except OSError:
            return []
        return sorted(names, key=lambda name: (len(name), name))
