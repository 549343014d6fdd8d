"""One JSON object a frame, a line each, whole at every moment."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from edge_app.errors import EXIT_BUG, EXIT_USAGE, AppError
from edge_app.record import FrameRecord
from edge_app.sinks import Listener, OutputClosed

if TYPE_CHECKING:
    from edge_app.sources import Frame

KEPT = 5
"""Files that are kept beside the newest where it is rotated."""


class JsonLines(Listener):
    """Writes ``FrameRecord.to_json`` to a file, or to stdout for ``-``; flushed line by line.

    An existing file is replaced. ``largest``: bytes after which the file is set aside as ``NAME.1``,
    the one before as ``NAME.2`` and so on up to ``KEPT``; None for one file without end. Lines are
    never cut. AppError (exit code 2) if it cannot be opened.
    """

    def __init__(self, target: str, largest: int | None = None) -> None:
        self._name = "stdout" if target == "-" else target
        self._owned = target != "-"
        self._largest = largest if self._owned else None
        self._written = 0
        self._path = Path(target).expanduser()
        try:
            self._file: TextIO = self._open() if self._owned else sys.stdout
        except OSError as error:
            raise AppError(
                f"--jsonl {target}: {error.strerror}; give a file in a directory that exists and "
                "that you may write to, or - for stdout",
                EXIT_USAGE,
            ) from None

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        # One write a line, so that a reader never sees half a record for long.
        line = json.dumps(record.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
        try:
            if self._largest is not None:
                size = len(line.encode())
                if self._written and self._written + size > self._largest:
                    self._rotate()
                self._written += size
            self._file.write(line)
            self._file.flush()
        except BrokenPipeError:
            self._discard_stdout()
            raise OutputClosed from None
        except OSError as error:
            raise AppError(
                f"{self._name}: cannot write: {error.strerror}; the run ends here", EXIT_BUG
            ) from None

    def _open(self) -> TextIO:
        return self._path.open("w", encoding="utf-8")

    def _rotate(self) -> None:
        self._file.close()
        for number in range(KEPT - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        self._file, self._written = self._open(), 0

    def _discard_stdout(self) -> None:
        # Python flushes stdout once more at exit, which would complain about the same pipe.
        if not self._owned:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)

    def close(self) -> None:
        if self._owned:
            try:
                self._file.close()
            except OSError:
                # The write that failed has been reported; closing would only repeat it.
                pass
