"""Reads the sources of a policy, each into a layer: TOML files, environment variables, and
single overrides from the command line."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from edge_app.policy.locator import Position, locate
from edge_app.policy.problems import Layer, Problem
from edge_app.policy.syntax import syntax_problem

VARIABLE_PREFIX: Final = "EDGE_APP_POLICY__"


def presets() -> tuple[str, ...]:
    """Names of the shipped policies."""
    return tuple(
        sorted(
            entry.name.removesuffix(".toml")
            for entry in _preset_directory().iterdir()
            if entry.name.endswith(".toml")
        )
    )


def preset_layer(name: str, problems: list[Problem]) -> list[Layer]:
    """A shipped policy by its name."""
    known = presets()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        advice = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(known)}"
        problems.append(Problem(f"preset {name!r}", f"there is no such preset; {advice}"))
        return []
    source = _preset_directory() / f"{name}.toml"
    return text_layer("preset", str(source), source.read_bytes(), problems)


def file_layer(kind: str, path: Path, problems: list[Problem]) -> list[Layer]:
    """A policy file. One that cannot be read is a problem."""
    try:
        return text_layer(kind, str(path), path.read_bytes(), problems)
    except OSError as error:
        problems.append(
            Problem(
                str(path),
                f"the policy cannot be read: {error.strerror}; check the path and its permissions",
            )
        )
        return []


def text_layer(kind: str, place: str, content: bytes, problems: list[Problem]) -> list[Layer]:
    """A policy as it stands in a file: one layer, or none and a problem if it is not TOML."""
    try:
        # Editors on Windows put a mark in front of UTF-8, which TOML does not know.
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        what = "this is not UTF-8 text; save the file as UTF-8"
        problems.append(Problem(place, what, position=Position(line, column)))
        return []
    lines = tuple(text.split("\n"))
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(syntax_problem(place, lines, error))
        return []
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, a hundred brackets: tomllib lets Python refuse them.
        what = f"not a policy: {error}; remove what no policy needs"
        problems.append(Problem(place, what))
        return []
    return [Layer(kind, place, values, locate(text), lines)]


def variable_layers(environment: Mapping[str, str]) -> list[Layer]:
    """The variables that set a key: ``EDGE_APP_POLICY__THERMAL__CONTROL_C=75``."""
    layers = []
    for name in sorted(environment):
        if name.startswith(VARIABLE_PREFIX):
            path = name.removeprefix(VARIABLE_PREFIX).lower().split("__")
            source = f"{name}={environment[name]}"
            values = _nested(path, _value(environment[name]))
            layers.append(Layer("environment", "environment", values, source=source))
    return layers


def override_layers(overrides: Iterable[str], problems: list[Problem]) -> list[Layer]:
    """Overrides from the command line: ``thermal.control_c=75``; ``battery.until=`` takes back
    what a weaker layer says of a key that may be left out."""
    layers = []
    for text in overrides:
        key, equals, value = text.partition("=")
        path = [part.strip() for part in key.split(".")]
        if not equals or not all(path):
            what = "must be key=value, for example thermal.control_c=75"
            problems.append(Problem("--set", what, source=text))
            continue
        layers.append(Layer("--set", "--set", _nested(path, _value(value)), source=text))
    return layers


def variable_name(dotted: str) -> str:
    """The environment variable that sets a key."""
    return VARIABLE_PREFIX + dotted.replace(".", "__").upper()


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    nested: dict[str, Any] = value
    return nested


def _value(text: str) -> Any:
    """A value as in TOML. Quoting a word for a shell is a nuisance: what is no TOML is text.

    Nothing is None: it takes back a key that may be left out, which TOML has no word for.
    """
    if not text.strip():
        return None
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.strip()
    return parsed["value"] if len(parsed) == 1 else text.strip()


def _preset_directory() -> Any:
    return resources.files("edge_app") / "assets" / "presets"
