"""The keys of a policy as data, taken from the model: what ``explain``, the reference, the JSON
Schema and every message say about a key comes from here."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.policy.model import Policy

EXAMPLES = {
    "schema": 1,
    "name": "greenhouse",
    "levels.max_bits": 6,
    "frame.target_fps": 10.0,
    "thermal.zones": ["cpu-thermal", "soc*"],
    "thermal.control_c": 72.0,
    "battery.tiers": [{"below": 50, "max_bits": 4}, {"below": 15, "max_bits": 2}],
    "battery.until": "18:00:00",
    "battery.capacity_wh": 50.0,
    "confidence.start_bits": 2,
}
"""Values worth showing where the default would be a dull example or there is none."""


@dataclass(frozen=True)
class Key:
    """One key.

    ``dotted``: with its tables, without array indices: ``battery.tiers.below``. ``kind``: what
    may stand there, in words. ``unit``, ``bounds``: empty if there are none. ``default``: as plain
    data; None if the key may be left out and then means nothing. ``is_table``: whether it has
    keys of its own; ``is_array`` whether it is an array.
    """

    dotted: str
    description: str
    kind: str
    unit: str
    bounds: str
    default: Any
    required: bool
    is_table: bool = False
    is_array: bool = False

    @property
    def name(self) -> str:
        return self.dotted.rpartition(".")[2]

    @property
    def table(self) -> str:
        """The table it stands in; empty at the top."""
        return self.dotted.rpartition(".")[0]

    @property
    def is_value(self) -> bool:
        """Whether a policy gives it a value of its own and not only keys below it."""
        return self.is_array or not self.is_table

    @property
    def range(self) -> str:
        """Bounds and unit: ``0 to 125 °C``; empty if there are neither."""
        return f"{self.bounds} {self.unit}".strip()

    @property
    def allowed(self) -> str:
        """All that may stand there in one phrase: ``a number, 0 to 125 °C``."""
        return f"{self.kind}, {self.range}" if self.range else self.kind


@functools.cache
def keys() -> dict[str, Key]:
    """Every key by its dotted name, in the order of the model; tables before what is in them."""
    schema = Policy.model_json_schema(by_alias=True)
    found: dict[str, Key] = {}
    _collect(schema, schema["$defs"], "", found)
    return found


def values() -> dict[str, Key]:
    """The keys that have a value: what a complete policy lists, arrays as a whole."""
    return {
        name: key
        for name, key in keys().items()
        if key.is_value and not any(keys()[parent].is_array for parent in _parents(name))
    }


def children(table: str) -> list[Key]:
    """The keys in a table, "" for the top."""
    return [key for key in keys().values() if key.table == table]


def key_at(path: Sequence[str | int]) -> Key | None:
    """The key that a path in a document is about: indices do not count."""
    return keys().get(".".join(part for part in path if isinstance(part, str)))


def suggestion(path: Sequence[str | int]) -> str | None:
    """What may have been meant by an unknown key: its name where it stands among its siblings,
    else its dotted name; None if nothing is near."""
    words = [part for part in path if isinstance(part, str)]
    name, siblings = words[-1], [key.name for key in children(".".join(words[:-1]))]
    near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)
    near = near or [sibling for sibling in siblings if len(name) > 1 and name in sibling]
    if near:
        return near[0]
    everywhere = {key.name: key.dotted for key in keys().values()}
    near = difflib.get_close_matches(name, list(everywhere), n=1, cutoff=0.75)
    return everywhere[near[0]] if near else None


def find(name: str) -> Key:
    """The key that a user names: with its tables, or its last part alone if that is clear.

    AppError (exit code 2) with what may have been meant.
    """
    name = name.strip().strip("[]")
    if name in keys():
        return keys()[name]
    ends = [key for key in keys().values() if key.name == name]
    if len(ends) == 1:
        return ends[0]
    if ends:
        several = ", ".join(key.dotted for key in ends)
        raise AppError(f"{name}: which of {several}?", EXIT_USAGE)
    last = name.rpartition(".")[2]
    alike = difflib.get_close_matches(last, [key.name for key in keys().values()], cutoff=0.7)
    meant = difflib.get_close_matches(name, list(keys()))
    meant += [key.dotted for key in keys().values() if key.name in alike]
    choice = " or ".join(list(dict.fromkeys(meant))[:3])
    advice = f"did you mean {choice}?" if choice else "`edge-app policy explain` lists all"
    raise AppError(f"{name}: no such key; {advice}", EXIT_USAGE)


def example(key: Key) -> Any:
    """A value that could stand there, as plain data (a time of day as its TOML text)."""
    return EXAMPLES.get(key.dotted, key.default)


def plain(value: Any) -> Any:
    """A value of the model as what TOML holds: tables as dicts, arrays as lists."""
    if isinstance(value, BaseModel):
        return {name: plain(item) for name, item in value.model_dump(by_alias=True).items()}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def value_of(policy: Policy, name: str) -> Any:
    """The value of a key as plain data; None if it is left out."""
    value: Any = policy
    for part in name.split("."):
        value = getattr(value, "policy_schema" if part == "schema" else part)
    return plain(value)


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _collect(
    schema: dict[str, Any], models: dict[str, Any], prefix: str, found: dict[str, Key]
) -> None:
    needed = schema.get("required", [])
    for name, entry in schema["properties"].items():
        value = resolved(entry, models)
        array = value.get("type") == "array"
        items = resolved(value.get("items", {}), models)
        table = items if array else value
        is_table = table.get("type") == "object"
        dotted = prefix + name
        found[dotted] = Key(
            dotted,
            entry.get("description", ""),
            _kind(value, items),
            entry.get("unit", value.get("unit", "")),
            _bounds(value),
            entry.get("default"),
            name in needed,
            is_table,
            array,
        )
        if is_table:
            _collect(table, models, f"{dotted}.", found)


def resolved(entry: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    """A schema with its reference followed and its "or null" left away: TOML has no null."""
    if "anyOf" in entry:
        (entry,) = [choice for choice in entry["anyOf"] if choice.get("type") != "null"]
    if "$ref" in entry:
        inner: dict[str, Any] = models[entry["$ref"].rpartition("/")[2]]
        return inner
    return entry


def _kind(value: dict[str, Any], items: dict[str, Any]) -> str:
    if "const" in value:
        return "a whole number"
    if "enum" in value:
        return " or ".join(f'"{choice}"' for choice in value["enum"])
    if value.get("format") == "time":
        return "a time of day without quotes"
    if value.get("type") == "array":
        return "an array of tables" if items.get("type") == "object" else "an array of texts"
    return {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "text in quotes",
        "object": "a table",
    }[value["type"]]


def _bounds(value: dict[str, Any]) -> str:
    if "const" in value:
        return f"only {value['const']}"
    low, high = value.get("minimum"), value.get("maximum")
    above = value.get("exclusiveMinimum")
    if above is not None:
        return f"more than {above:g}, at most {high:g}" if high is not None else f"above {above:g}"
    if value.get("minItems") or value.get("minLength"):
        return "not empty"
    return f"{low:g} to {high:g}" if low is not None and high is not None else ""
