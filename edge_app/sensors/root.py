"""Where sensors read: small files below one root, with the errors that the kernel gives.

``Root`` is all that a reader needs, so that a directory, a recording and a test's dictionary serve
as well as this machine does. Nothing else in the sensors opens a file.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ATTRIBUTE_BYTES = 4096
"""The kernel never gives more than a page for one attribute."""

LABEL_LENGTH = 64
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Attribute:
    """Content of one file, or the name of the error (``ENODATA``, ...) that came instead."""

    text: str | None
    error: str = ""

    def number(self, scale: float = 1.0) -> float | None:
        """The content as a whole number times ``scale``; None if it is none."""
        if self.text is None:
            return None
        try:
            return int(self.text) * scale
        except (ValueError, OverflowError):
            return None

    @property
    def label(self) -> str:
        """The content as a name: one printable line, not long; "" if there is none."""
        return printable(self.text or "")[:LABEL_LENGTH]

    @property
    def exists(self) -> bool:
        """Whether there is a file, even one that gives an error."""
        return self.error not in ("ENOENT", "ENOTDIR")

    @property
    def problem(self) -> str:
        """Why ``number`` gave None."""
        return self.error or f"content is {self.text!r}, not a whole number"


class Root(Protocol):
    """Files of /sys and /proc, of whatever machine and time. Paths have no leading slash."""

    @property
    def name(self) -> str:
        """For messages: "/", a directory, "recording pi5.jsonl.gz"."""
        ...

    @property
    def is_this_machine(self) -> bool:
        """Whether what is read is true of the machine that this program runs on, now."""
        ...

    def read(self, path: str) -> Attribute:
        """The stripped text of a file, or the error. Never raises."""
        ...

    def entries(self, path: str) -> list[str]:
        """Names in a directory in natural order; empty if it is not there."""
        ...


class RootAround:
    """What stands around another root and is taken for it."""

    def __init__(self, root: Root) -> None:
        self._root = root

    @property
    def name(self) -> str:
        return self._root.name

    @property
    def is_this_machine(self) -> bool:
        return self._root.is_this_machine


class SysRoot:
    """Files of /sys and /proc, or of a copy of them below ``root``.

    Plain system calls instead of file objects: some drivers answer EAGAIN, which Python's
    buffered files turn into None or TypeError instead of an OSError.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self._prefix = str(root).rstrip("/") + "/"
        self.busy_with = ""
        """The file that is being read now: a thread that waits for it can say so."""

    @property
    def name(self) -> str:
        return str(self.root)

    @property
    def is_this_machine(self) -> bool:
        return self._prefix == "/"

    def read(self, path: str) -> Attribute:
        self.busy_with = path
        try:
            return attribute(self.read_bytes(path))
        except OSError as error:
            return Attribute(None, errno.errorcode.get(error.errno or 0, str(error)))
        finally:
            self.busy_with = ""

    def read_bytes(self, path: str) -> bytes:
        """The first page of a file; OSError as it comes. The only place that reads a file."""
        descriptor = os.open(self._prefix + path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.pread(descriptor, ATTRIBUTE_BYTES, 0)
        finally:
            os.close(descriptor)

    def entries(self, path: str) -> list[str]:
        try:
            return natural(os.listdir(self._prefix + path))
        except OSError:
            return []


def attribute(content: bytes) -> Attribute:
    """What a file with this content says."""
    return Attribute(content.decode("utf-8", "replace").strip("\0 \t\n"))


def printable(name: str) -> str:
    """A name without what could drive a terminal: copies and recordings come from strangers."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def natural(names: Iterable[str]) -> list[str]:
    """Sorted so that ``zone10`` comes after ``zone9``."""

    def key(name: str) -> list[tuple[int, str]]:
        # Pieces alternate between text and digits, so that like is compared with like.
        pieces = _DIGITS.split(name)
        return [(int(piece), "") if piece.isdecimal() else (0, piece) for piece in pieces]

    return sorted(names, key=key)


def place(root: Root, path: str) -> str:
    """A path as a person should read it: absolute here, with its root's name elsewhere."""
    return f"/{path}" if root.is_this_machine else f"{path} of {root.name}"
