"""What could not be sent yet, on disk and bounded."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from pathlib import Path
from typing import Any

LARGEST = 2000
"""Messages that are kept; of more, the oldest are lost and counted."""
COMPACT_LINES = 4 * LARGEST

log = logging.getLogger(__name__)


class Backlog:
    """A queue of JSON messages that survives a restart.

    A line is appended for each message and for each that was sent; the file is written anew when it
    has grown. A disk that cannot be written costs the survival, not the queue. ``dropped``: messages
    that were lost because there were too many.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: deque[dict[str, Any]] = deque()
        self._lines = 0
        self._complained = False
        self.dropped = 0
        self._load()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, message: dict[str, Any]) -> None:
        """Put ``message`` at the end."""
        self._waiting.append(message)
        if len(self._waiting) > LARGEST:
            self._waiting.popleft()
            self.dropped += 1
        self._append({"add": message})

    def first(self) -> dict[str, Any] | None:
        """The oldest message; it stays until ``sent``."""
        return self._waiting[0] if self._waiting else None

    def sent(self, message: dict[str, Any] | None) -> None:
        """``message``, which was the oldest, has arrived; perhaps it had to make room meanwhile."""
        if self._waiting and self._waiting[0] is message:
            self._waiting.popleft()
            self._append({"sent": 1})

    def _append(self, entry: dict[str, Any]) -> None:
        self._lines += 1
        try:
            if self._lines > COMPACT_LINES:
                self._rewrite()
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("%s: cannot be kept for later: %s", self._path, error.strerror)

    def _rewrite(self) -> None:
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        text = "".join(json.dumps({"add": message}) + "\n" for message in self._waiting)
        beside.write_text(text, encoding="utf-8")
        beside.replace(self._path)
        self._lines = len(self._waiting)

    def _load(self) -> None:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return
        for line in lines:
            try:
                entry = json.loads(line)
                if "add" in entry:
                    self._waiting.append(dict(entry["add"]))
                elif self._waiting:
                    self._waiting.popleft()
            except (ValueError, TypeError):
                continue  # the line that was being written when the power went
        while len(self._waiting) > LARGEST:
            self._waiting.popleft()
        self._lines = len(lines)
