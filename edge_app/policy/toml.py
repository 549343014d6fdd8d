"""Writes values as TOML does. ``tomllib`` only reads."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time

BARE = re.compile(r"[A-Za-z0-9_-]+")
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def value_text(value: object) -> str:
    """A value as TOML, on one line. ValueError for what TOML has no notation for."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return "inf" if value == math.inf else repr(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        pairs = [f"{key_text(str(key))} = {value_text(item)}" for key, item in value.items()]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    if isinstance(value, Sequence):
        return f"[{', '.join(value_text(item) for item in value)}]"
    raise ValueError(f"TOML has no notation for {value!r}")


def key_text(key: str) -> str:
    """A key, in quotes if it needs them."""
    return key if BARE.fullmatch(key) else _quoted(key)


def dotted(path: Sequence[str | int]) -> str:
    """A path in words: ``battery.tiers.1.below``."""
    return ".".join(str(part) if isinstance(part, int) else key_text(part) for part in path)


def _quoted(text: str) -> str:
    return '"' + "".join(ESCAPES.get(letter, _printable(letter)) for letter in text) + '"'


def _printable(letter: str) -> str:
    """TOML forbids control characters in strings."""
    return f"\\u{ord(letter):04x}" if ord(letter) < 32 or ord(letter) == 127 else letter
