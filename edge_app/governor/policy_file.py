"""Reads policies: a preset, changed by a file, changed by single overrides.

All mistakes are reported at once, each as ``file:line:column: key: what is wrong; what to do``
with the line it is about.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.governor.locator import Path as KeyPath
from edge_app.governor.locator import Position, locate
from edge_app.governor.policy import SCHEMA, Policy

PLACE = re.compile(r"(.*?):(\d+):(\d+): ")
SYNTAX_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


class PolicyError(AppError):
    """A policy that cannot be used. ``problems`` has one text for each mistake, file by file from
    top to bottom."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(sorted(problems, key=_place))
        super().__init__("\n".join(self.problems), EXIT_USAGE)


def _place(problem: str) -> tuple[str, int, int]:
    match = PLACE.match(problem)
    # What has no place (a preset's name, an override) comes last.
    return (match[1], int(match[2]), int(match[3])) if match else ("\uffff", 0, 0)


@dataclass
class _Layer:
    """One source of keys: the values and where each of them stands."""

    name: str
    values: dict[str, Any]
    places: dict[KeyPath, Position] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def has(self, path: KeyPath) -> bool:
        value: Any = self.values
        for key in path:
            in_table = isinstance(value, dict) and key in value
            in_array = isinstance(value, list) and isinstance(key, int) and key < len(value)
            if not (in_table or in_array):
                return False
            value = value[key]
        return True

    def problem(self, path: KeyPath, what: str) -> str:
        dotted = _dotted(path)
        text = f"{dotted}: {what}" if dotted else what
        place = self.places.get(path)
        if place is None:
            return f"{self.name}: error: {text}"
        line = self.lines[place.line - 1].strip()
        return f"{self.name}:{place.line}:{place.column}: error: {text}\n    {line}"


def presets() -> tuple[str, ...]:
    """Names of the shipped policies."""
    return tuple(
        sorted(
            entry.name.removesuffix(".toml")
            for entry in _preset_directory().iterdir()
            if entry.name.endswith(".toml")
        )
    )


def load_policy(
    path: Path | None, preset: str = "balanced", overrides: Iterable[str] = ()
) -> Policy:
    """The preset, with the keys of the file at ``path`` instead of its own, and those of
    ``overrides`` (each ``key.sub=value``, the value as in TOML) instead of both.

    PolicyError (exit code 2) lists everything that is wrong.
    """
    layers: list[_Layer] = []
    problems: list[str] = []
    known = presets()
    if preset in known:
        source = _preset_directory() / f"{preset}.toml"
        layers += _parse(str(source), source.read_bytes(), problems)
    else:
        problems.append(f"preset {preset!r}: no such policy{_suggestion(preset, known)}")
    if path is not None:
        try:
            layers += _parse(str(path), path.read_bytes(), problems)
        except OSError as error:
            problems.append(f"{path}: error: the policy cannot be read: {error.strerror}")
    for override in overrides:
        layers += _override(override, problems)
    if problems and not layers:
        raise PolicyError(problems)
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer.values)
    policy: Policy | None = None
    bad: set[KeyPath] = set()
    try:
        policy = Policy.model_validate(merged)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            location = tuple(details["loc"])
            bad.add(location)
            problems.append(_origin(layers, location).problem(location, _explain(details)))
    for contradiction in _contradictions(merged, bad):
        problems.append(_blame(layers, contradiction))
    if problems or policy is None:
        raise PolicyError(problems)
    return policy


def _preset_directory() -> Any:
    return resources.files("edge_app") / "assets" / "presets"


def _parse(name: str, content: bytes, problems: list[str]) -> list[_Layer]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(f"{name}:{line}:1: error: this is not UTF-8 text")
        return []
    lines = text.splitlines()
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = SYNTAX_PLACE.search(str(error))
        what = SYNTAX_PLACE.sub("", str(error))
        line = int(match[1]) if match and match[1] else max(1, len(lines))
        quoted = lines[line - 1] if line <= len(lines) else ""
        column = int(match[2]) if match and match[2] else len(quoted) + 1
        problems.append(
            f"{name}:{line}:{column}: error: not valid TOML: {what}\n    {quoted.strip()}"
        )
        return []
    return [_Layer(name, values, locate(text), lines)]


def _override(text: str, problems: list[str]) -> list[_Layer]:
    name = f"override {text!r}"
    key, equals, value = text.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        problems.append(f"{name}: error: must be key=value, for example thermal.control_c=75")
        return []
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        # Quoting a word for a shell is a nuisance: what is no TOML value is text.
        parsed = value.strip()
    values: dict[str, Any] = {}
    table = values
    for part in keys[:-1]:
        table = table.setdefault(part, {})
    table[keys[-1]] = parsed
    return [_Layer(name, values)]


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> None:
    """Tables are merged, everything else (arrays too) is replaced."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = _copy(value)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _origin(layers: list[_Layer], path: KeyPath) -> _Layer:
    """The layer that has the last word on a key; on its table if nobody gives the key."""
    indices = [index for index, key in enumerate(path) if isinstance(key, int)]
    if indices:
        # Arrays replace each other: only the last one's elements exist.
        layers = [layer for layer in layers if layer.has(path[: indices[0]])][-1:]
    for length in range(len(path), 0, -1):
        for layer in reversed(layers):
            if layer.has(path[:length]):
                return _Layer(
                    layer.name,
                    layer.values,
                    {**layer.places, path: layer.places[path[:length]]}
                    if path[:length] in layer.places
                    else {},
                    layer.lines,
                )
    return layers[-1] if layers else _Layer("policy", {})


def _explain(details: Any) -> str:
    """What pydantic found, in the words of someone who writes a policy."""
    path, given, kind = tuple(details["loc"]), details["input"], details["type"]
    limits = details.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "missing":
        return "this key is needed here"
    if path == ("schema",):
        return f"this version reads schema {SCHEMA} (got {given!r}); update edge-app or the policy"
    got = f"(got {given!r})"
    if kind in ("greater_than_equal", "greater_than"):
        bound = limits.get("ge", limits.get("gt"))
        relation = "at least" if "ge" in limits else "more than"
        return f"must be {relation} {bound:g} {got}"
    if kind in ("less_than_equal", "less_than"):
        return f"must be at most {limits.get('le', limits.get('lt')):g} {got}"
    if kind == "literal_error":
        choices = limits.get("expected", "")
        near = difflib.get_close_matches(str(given), re.findall(r"'([^']*)'", choices), n=1)
        return f"must be {choices} {got}" + (f'; did you mean "{near[0]}"?' if near else "")
    expected = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "string_type": "text in quotes",
        "tuple_type": "an array",
        "model_type": "a table",
        "model_attributes_type": "a table",
        "too_short": "an array that is not empty",
        "string_too_short": "text that is not empty",
    }.get(kind)
    return f"must be {expected} {got}" if expected else f"{details['msg']} {got}"


def _unknown_key(path: KeyPath) -> str:
    name = str(path[-1])
    siblings = list(_keys_of(path[:-1]))
    near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)
    near = near or [sibling for sibling in siblings if len(name) > 1 and name in sibling]
    if near:
        return f'unknown key; did you mean "{near[0]}"?'
    everywhere = {dotted.rpartition(".")[2]: dotted for dotted in all_keys()}
    near = difflib.get_close_matches(name, list(everywhere), n=1, cutoff=0.75)
    if near:
        return f'unknown key; did you mean "{everywhere[near[0]]}"?'
    return f"unknown key; known here: {', '.join(siblings)}"


def _fields(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """Keys of a table as they are written, each with its table's model if it is one."""
    found: dict[str, type[BaseModel] | None] = {}
    for name, info in model.model_fields.items():
        kind: Any = info.annotation
        arguments = getattr(kind, "__args__", ())
        inner = kind if not arguments else arguments[0]
        table = isinstance(inner, type) and issubclass(inner, BaseModel)
        found[info.alias or name] = inner if table else None
    return found


def _keys_of(path: KeyPath) -> dict[str, type[BaseModel] | None]:
    model: type[BaseModel] | None = Policy
    for key in path:
        if isinstance(key, str) and model is not None:
            model = _fields(model).get(key)
    return {} if model is None else _fields(model)


def all_keys(model: type[BaseModel] = Policy, prefix: str = "") -> list[str]:
    """Every key of a policy with its tables: ``thermal.control_c``."""
    keys: list[str] = []
    for name, table in _fields(model).items():
        keys.append(prefix + name)
        if table is not None:
            keys += all_keys(table, f"{prefix}{name}.")
    return keys


@dataclass(frozen=True)
class _Contradiction:
    """Two keys that do not go together, and what each would have to be."""

    first: KeyPath
    first_must: str
    second: KeyPath
    second_must: str


def _blame(layers: list[_Layer], contradiction: _Contradiction) -> str:
    """The problem, at the key that was changed last: the other was there before."""

    def changed(path: KeyPath) -> int:
        return max((index for index, layer in enumerate(layers) if layer.has(path)), default=-1)

    path, must = contradiction.second, contradiction.second_must
    if changed(contradiction.first) > changed(contradiction.second):
        path, must = contradiction.first, contradiction.first_must
    return _origin(layers, path).problem(path, must)


def _contradictions(values: dict[str, Any], bad: set[KeyPath]) -> list[_Contradiction]:
    """Keys that are right alone and wrong together.

    Looked for here and not in the models, so that they are reported with everything else and
    not only once all else is right.
    """
    found: list[_Contradiction] = []

    def number(*path: str) -> float | None:
        if path in bad:
            return None
        value: Any = values
        model: Any = Policy
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            for key in path[:-1]:
                model = _fields(model)[key]
            value = model.model_fields[path[-1]].default
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return float(value) if number else None

    def ordered(low: tuple[str, ...], high: tuple[str, ...], gap: float = 0.0) -> None:
        first, second = number(*low), number(*high)
        if first is None or second is None or first + gap <= second:
            return
        by = f"{gap:g} or more " if gap else "not "
        above, below = ("above", "below") if gap else ("below", "above")
        found.append(
            _Contradiction(
                low,
                f"must be {by}{below} {_dotted(high)} = {second:g} (got {first:g})",
                high,
                f"must be {by}{above} {_dotted(low)} = {first:g} (got {second:g})",
            )
        )

    ordered(("levels", "min_bits"), ("levels", "max_bits"))
    ordered(("thermal", "on_c"), ("thermal", "control_c"), 2.0)
    ordered(("thermal", "control_c"), ("thermal", "critical_c"), 2.0)
    ordered(("thermal", "critical_c"), ("thermal", "pause_c"))
    ordered(("stability", "raise_dwell_s"), ("stability", "raise_backoff_max_s"))
    if number("frame", "target_fps"):
        ordered(("frame", "min_fps"), ("frame", "target_fps"))
    battery = values.get("battery")
    tiers = battery.get("tiers") if isinstance(battery, dict) else None
    previous: tuple[float, int] | None = None
    for index, tier in enumerate(tiers if isinstance(tiers, list) else []):
        path: KeyPath = ("battery", "tiers", index)
        if not isinstance(tier, dict) or any(location[:3] == path for location in bad):
            previous = None
            continue
        below, bits = tier.get("below"), tier.get("max_bits")
        if not isinstance(below, (int, float)) or not isinstance(bits, int):
            continue
        if previous is not None and below >= previous[0]:
            must = f"must be below that of the tier before, {previous[0]:g} (got {below:g})"
            key = (*path, "below")
            found.append(_Contradiction(key, must, key, must))
        if previous is not None and bits > previous[1]:
            must = f"must not be above that of the tier before, {previous[1]} (got {bits})"
            key = (*path, "max_bits")
            found.append(_Contradiction(key, must, key, must))
        previous = float(below), bits
    return found


def _dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)


def _suggestion(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f'; did you mean "{near[0]}"?' if near else f"; there are: {', '.join(known)}"
