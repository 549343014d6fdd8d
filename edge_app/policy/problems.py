"""What is wrong with a policy, in the words of someone who writes one.

A problem reads ``file:line:column: error: dotted.key: what is wrong (got X); what to do``, with
the line it is about below. What does not come from a file says where it comes from instead:
``environment: error: ...``, ``--set: error: ...``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.policy.keys import children, key_at, suggestion
from edge_app.policy.locator import Path as KeyPath
from edge_app.policy.locator import Position
from edge_app.policy.model import SCHEMA
from edge_app.policy.toml import dotted, value_text

LONGEST_QUOTE = 100
BOUNDS = ("greater_than_equal", "greater_than", "less_than_equal", "finite_number")


@dataclass(frozen=True)
class Problem:
    """One mistake, or something odd. ``source`` is the line that it is about."""

    place: str
    what: str
    key: str = ""
    position: Position | None = None
    source: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        where = self.place
        if self.position is not None:
            where += f":{self.position.line}:{self.position.column}"
        text = f"{self.key}: {self.what}" if self.key else self.what
        quote = f"\n    {_clipped(self.source.strip())}" if self.source.strip() else ""
        return f"{where}: {self.severity}: {text}{quote}"

    def as_json(self) -> dict[str, Any]:
        """For editors; line and column are null where there is no file."""
        return {
            "file": self.place,
            "line": self.position.line if self.position else None,
            "column": self.position.column if self.position else None,
            "severity": self.severity,
            "key": self.key,
            "message": self.what,
            "source": self.source.strip(),
        }


class PolicyError(AppError):
    """A policy that cannot be used. ``problems`` has one entry for each mistake, layer by layer,
    each from top to bottom."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems), EXIT_USAGE)


@dataclass(frozen=True)
class Layer:
    """One source of keys: the values and where each of them stands.

    ``kind``: what sort of source, as `policy show --origin` names it. ``place``: the file, or
    what stands for it in a message. ``source``: the text of a layer that is no file.
    """

    kind: str
    place: str
    values: dict[str, Any]
    places: dict[KeyPath, Position] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    source: str = ""

    def has(self, path: KeyPath) -> bool:
        """Whether the layer gives this key, array element or table."""
        value: Any = self.values
        for key in path:
            in_table = isinstance(value, dict) and key in value
            in_array = isinstance(value, list) and isinstance(key, int) and key < len(value)
            if not (in_table or in_array):
                return False
            value = value[key]
        return True

    def position(self, path: KeyPath) -> Position | None:
        """Where a key stands; a key that is not there: the table that it should stand in."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return None

    def problem(
        self, path: KeyPath, what: str, severity: Literal["error", "warning"] = "error"
    ) -> Problem:
        """Something about a key that this layer gives."""
        position = self.position(path)
        source = self.source if position is None else self.lines[position.line - 1]
        return Problem(self.place, what, dotted(path), position, source, severity)

    def origin(self, path: KeyPath) -> str:
        """Where a value comes from, in short: ``user: policy.toml:7``."""
        position = self.position(path)
        if position is None:
            # An override is the key itself; a variable is looked for by its name.
            name = self.source.partition("=")[0]
            return f"{self.kind}: {name}" if self.kind == "environment" else self.kind
        return f"{self.kind}: {self.place}:{position.line}"


def explain(details: Any) -> str:
    """What pydantic found about a value, and what to do."""
    path, given, kind = tuple(details["loc"]), details["input"], details["type"]
    if kind == "extra_forbidden":
        return unknown_key(path)
    key = key_at(path)
    allowed = key.allowed if key else "another value"
    if kind == "missing":
        return f"is missing; add it to this table: {path[-1]} = ... ({allowed})"
    got = f"(got {got_text(given)})"
    if path == ("schema",):
        return (
            f"this edge-app reads schema {SCHEMA} {got}; update edge-app, or write schema = "
            f"{SCHEMA} and mend what is then reported"
        )
    in_array = isinstance(path[-1], int)
    if in_array and key is not None:
        element = "a table" if key.is_table else "text in quotes"
        advice = "write { below = 20, max_bits = 4 }" if key.is_table else "put it into quotes"
        return f"must be {element} {got}; {advice}"
    if kind in BOUNDS and key is not None:
        advice = f"give {key.range}"
    else:
        advice = _advice(kind, given, allowed)
    return f"{_requirement(details, key.kind if key else 'another value')} {got}; {advice}"


def unknown_key(path: KeyPath) -> str:
    """About a key that no policy has."""
    meant = suggestion(path)
    if meant is not None:
        return f'unknown key; did you mean "{meant}"?'
    siblings = children(".".join(part for part in path[:-1] if isinstance(part, str)))
    known = ", ".join(key.name for key in siblings)
    return f"unknown key; remove it, or take one of those known here: {known}"


def got_text(value: Any) -> str:
    """A value as it was written, shortened if it is long."""
    if value is None:
        return "nothing"
    return _clipped(value_text(value), 40)


def _requirement(details: Any, kind: str) -> str:
    limits, error = details.get("ctx", {}), details["type"]
    if error == "greater_than_equal":
        return f"must be at least {limits['ge']:g}"
    if error == "greater_than":
        return f"must be more than {limits['gt']:g}"
    if error == "less_than_equal":
        return f"must be at most {limits['le']:g}"
    if error == "finite_number":
        return "must be a finite number"
    if error in ("too_short", "string_too_short"):
        return "must not be empty"
    return f"must be {kind}"


def _advice(error: str, given: Any, allowed: str) -> str:
    if error == "literal_error":
        near = difflib.get_close_matches(str(given), re.findall(r'"([^"]*)"', allowed), n=1)
        return f'did you mean "{near[0]}"?' if near else f"write {allowed}"
    if error == "time_type":
        clock = re.fullmatch(r"(\d\d?):(\d\d)(:\d\d)?", given) if isinstance(given, str) else None
        example = f"{int(clock[1]):02}:{clock[2]}{clock[3] or ':00'}" if clock else "18:00:00"
        return f"write {example} without quotes"
    if error in ("int_type", "float_type") and isinstance(given, str):
        try:
            float(given)
        except ValueError:
            return f"give {allowed}"
        return "write it without quotes"
    if error == "int_type" and isinstance(given, float) and given.is_integer():
        return f"write {int(given)}"
    if error == "bool_type":
        return "write true or false, without quotes"
    if error == "string_type":
        return "put it into quotes"
    if error == "tuple_type":
        return f"put it into brackets: [ {got_text(given)} ]"
    if error == "model_type":
        return "open the table with its name in brackets and put its keys below"
    if error in ("too_short", "string_too_short"):
        return "fill it, or leave the key out for the default"
    return f"give {allowed}"


def _clipped(text: str, length: int = LONGEST_QUOTE) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
