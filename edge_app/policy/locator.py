"""Where in a TOML text each key is. ``tomllib`` parses but does not say.

Only for text that ``tomllib`` has accepted: the scanner knows the structure of TOML (tables,
dotted keys, arrays, inline tables, the four kinds of string) and skips values without checking
them.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass

Path = tuple[str | int, ...]

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
QUOTED = re.compile(r'"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'')
TRIPLE = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}', re.DOTALL)
SCALAR = re.compile(r"[^,\]}#\n]+")


@dataclass(frozen=True)
class Position:
    """Line and column, both from 1."""

    line: int
    column: int


def locate(text: str) -> dict[Path, Position]:
    """The position of every key and array element, by its path: ``("battery", "tiers", 1)``.

    Tables are where their header, or the first key that implies them, stands.
    """
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: dict[Path, Position] = {}
        self._array_lengths: dict[Path, int] = {}

    def scan(self) -> dict[Path, Position]:
        table: Path = ()
        self._skip_blank(newlines=True)
        while self._at < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._header(2, array=True)
            elif self._text[self._at] == "[":
                table = self._header(1, array=False)
            else:
                self._pair(table)
            self._skip_blank(newlines=True)
        return self._found

    def _header(self, brackets: int, array: bool) -> Path:
        start = self._at
        self._at += brackets
        self._skip_blank(newlines=False)
        keys = self._keys()
        self._at += brackets
        path: Path = ()
        for index, (key, _) in enumerate(keys):
            path = (*path, key)
            self._mark(path, start)
            if path in self._array_lengths and not (array and index == len(keys) - 1):
                # A sub-table of the array's newest element.
                path = (*path, self._array_lengths[path] - 1)
        if array:
            number = self._array_lengths.get(path, 0)
            self._array_lengths[path] = number + 1
            path = (*path, number)
            self._mark(path, start)
        return path

    def _pair(self, table: Path) -> None:
        path = table
        for key, start in self._keys():
            path = (*path, key)
            self._mark(path, start)
        self._at += 1  # the equals sign
        self._skip_blank(newlines=False)
        self._value(path)

    def _keys(self) -> list[tuple[str, int]]:
        """A dotted key with the place of each part; stops behind it and the blanks there."""
        keys = []
        while True:
            start = self._at
            bare = BARE_KEY.match(self._text, start)
            match = bare or QUOTED.match(self._text, start)
            assert match is not None, "text that tomllib has accepted has a key here"
            self._at = match.end()
            keys.append((match[0] if bare else _unquoted(match[0]), start))
            self._skip_blank(newlines=False)
            if self._text[self._at : self._at + 1] != ".":
                return keys
            self._at += 1
            self._skip_blank(newlines=False)

    def _value(self, path: Path) -> None:
        opening = self._text[self._at]
        if opening == "[":
            self._at += 1
            self._skip_blank(newlines=True)
            index = 0
            while self._text[self._at] != "]":
                self._mark((*path, index), self._at)
                self._value((*path, index))
                index += 1
                self._skip_blank(newlines=True)
                self._skip_comma()
            self._at += 1
        elif opening == "{":
            self._at += 1
            self._skip_blank(newlines=True)
            while self._text[self._at] != "}":
                self._pair(path)
                self._skip_blank(newlines=True)
                self._skip_comma()
            self._at += 1
        else:
            for pattern in (TRIPLE, QUOTED, SCALAR):
                match = pattern.match(self._text, self._at)
                if match is not None:
                    self._at = match.end()
                    return

    def _skip_comma(self) -> None:
        if self._text[self._at] == ",":
            self._at += 1
            self._skip_blank(newlines=True)

    def _skip_blank(self, newlines: bool) -> None:
        blank = " \t\n" if newlines else " \t"
        while self._at < len(self._text):
            if newlines and self._text[self._at] == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif self._text[self._at] in blank:
                self._at += 1
            else:
                return

    def _mark(self, path: Path, offset: int) -> None:
        line = self._text.count("\n", 0, offset) + 1
        column = offset - self._text.rfind("\n", 0, offset)
        self._found.setdefault(path, Position(line, column))


def _unquoted(key: str) -> str:
    return next(iter(tomllib.loads(f"{key} = 0")))
