"""Puts a policy together from its layers, from weak to strong:

defaults < preset < ``/etc/edge-app/policy.d/*.toml`` in the order of their names <
``$XDG_CONFIG_HOME/edge-app/policy.toml`` < ``--policy FILE`` < environment < ``--set``.

Tables are merged key by key; everything else, arrays too, is replaced as a whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from edge_app.policy.files import (
    file_layer,
    override_layers,
    preset_layer,
    variable_layers,
)
from edge_app.policy.keys import values
from edge_app.policy.locator import Path as KeyPath
from edge_app.policy.model import Policy
from edge_app.policy.problems import Layer, PolicyError, Problem, explain
from edge_app.policy.rules import Contradiction, contradictions
from edge_app.policy.toml import dotted

SYSTEM_DIRECTORY: Final = Path("/etc/edge-app/policy.d")
SETTLED_NS: Final = 50_000_000
"""Longer than any file system's clock takes from one tick to the next."""

Stamp = tuple[int, ...] | None
"""What changes whenever a file or directory does; None if there is none."""


@dataclass(frozen=True)
class Sources:
    """Where to look for layers. ``system``, ``user``: None for without."""

    path: Path | None = None
    preset: str = "balanced"
    overrides: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    system: Path | None = None
    user: Path | None = None

    def drop_ins(self) -> tuple[list[Path], list[Problem]]:
        """The system's files in their order; those whose names begin with a dot are editors'."""
        if self.system is None:
            return [], []
        try:
            names = os.listdir(self.system)
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        except OSError as error:
            what = f"the directory cannot be listed: {error.strerror}; check its permissions"
            return [], [Problem(str(self.system), what)]
        chosen = sorted(name for name in names if name.endswith(".toml") and name[0] != ".")
        return [self.system / name for name in chosen], []

    def stamps(self) -> dict[Path, Stamp]:
        """The state of every file that is or could be a layer, and of the system's directory."""
        named = [path for path in (self.path, self.user, self.system) if path is not None]
        return {path: _stamp(path) for path in named + self.drop_ins()[0]}


@dataclass(frozen=True)
class Resolved:
    """A policy and where it comes from.

    ``layers``: what was read, from weak to strong. ``stamps``: the state of the files from
    before they were read, so that no change after it is overlooked.
    """

    policy: Policy
    layers: tuple[Layer, ...]
    sources: Sources
    stamps: Mapping[Path, Stamp] = field(default_factory=dict)

    @property
    def origins(self) -> dict[str, str]:
        """Where each value comes from, by dotted key: ``user: /home/.../policy.toml:7``."""
        return {name: self.origin(name) for name in values()}

    def origin(self, name: str) -> str:
        """Where the value of one key comes from; ``default`` if no layer gives it."""
        layer = self.layer_of(name)
        return "default" if layer is None else layer.origin(tuple(name.split(".")))

    def layer_of(self, name: str) -> Layer | None:
        """The layer that has the last word on a key."""
        path: KeyPath = tuple(name.split("."))
        return next((layer for layer in reversed(self.layers) if layer.has(path)), None)

    def given_by_user(self, problem: Problem) -> bool:
        """Whether ``problem`` is about a value that somebody wrote, and not a preset's or a
        default."""
        layer = self.layer_of(problem.key)
        return layer is not None and layer.kind != "preset"

    def problem(self, path: KeyPath, what: str, severity: Literal["error", "warning"]) -> Problem:
        """Something about a value, at the place where it was given."""
        layer = self.layer_of(dotted(_replaced(path)))
        if layer is None:
            return Problem("default", what, dotted(path), severity=severity)
        return layer.problem(path, what, severity)


def load_policy(
    path: Path | None, preset: str = "balanced", overrides: Iterable[str] = ()
) -> Policy:
    """The preset, with the keys of the file at ``path`` instead of its own, and those of
    ``overrides`` (each ``key.sub=value``, the value as in TOML) instead of both. Nothing else is
    read.

    PolicyError (exit code 2) lists everything that is wrong.
    """
    return load(Sources(path, preset, tuple(overrides))).policy


def resolve(
    path: Path | None = None,
    preset: str = "balanced",
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    system: Path | None = SYSTEM_DIRECTORY,
) -> Resolved:
    """The policy from all layers; ``environment`` is that of the process if it is not given.

    PolicyError (exit code 2) lists everything that is wrong, in all layers.
    """
    variables = dict(os.environ if environment is None else environment)
    return load(Sources(path, preset, tuple(overrides), variables, system, user_file(variables)))


def user_file(environment: Mapping[str, str]) -> Path | None:
    """The user's policy file by the XDG base directory specification, whether it exists or not.
    None if the environment names no home, as that of a service may."""
    for name, below in (("XDG_CONFIG_HOME", ""), ("HOME", ".config")):
        directory = Path(environment.get(name, ""))
        # The specification: relative paths are invalid and to be ignored.
        if directory.is_absolute():
            return directory / below / "edge-app" / "policy.toml"
    return None


def load(sources: Sources) -> Resolved:
    """The policy from these sources. PolicyError (exit code 2) lists everything that is wrong."""
    stamps = sources.stamps()
    problems: list[Problem] = []
    layers = preset_layer(sources.preset, problems)
    drop_ins, unlisted = sources.drop_ins()
    problems += unlisted
    for drop_in in drop_ins:
        layers += file_layer("system", drop_in, problems)
    if sources.user is not None and stamps.get(sources.user) is not None:
        layers += file_layer("user", sources.user, problems)
    if sources.path is not None:
        layers += file_layer("--policy", sources.path, problems)
    layers += variable_layers(sources.environment)
    layers += override_layers(sources.overrides, problems)
    policy = _validated(layers, problems)
    if policy is None:
        raise PolicyError(problems)
    return Resolved(policy, tuple(layers), sources, stamps)


def _validated(layers: list[Layer], problems: list[Problem]) -> Policy | None:
    """The policy of all layers, or None and the problems of each and of their combination.

    Each layer is checked alone, too: a mistake is one also where a stronger layer hides it.
    """
    unread = any(problem.place != "--set" for problem in problems)
    for layer in layers:
        problems += [layer.problem(path, what) for path, what in _mistakes(layer.values).items()]
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer.values)
    # What a file says that cannot be read might be just what makes two keys go together.
    found = [] if unread else contradictions(merged, _mistakes(merged))
    problems += [_blame(layers, contradiction) for contradiction in found]
    if problems:
        order = {layer.place: index for index, layer in enumerate(layers)}
        problems.sort(key=lambda problem: _rank(problem, order))
        return None
    return Policy.model_validate(merged)


def _rank(problem: Problem, order: Mapping[str, int]) -> tuple[int, int, int]:
    """Layer by layer, from top to bottom; what could not be read comes before."""
    position = problem.position
    line, column = (position.line, position.column) if position else (0, 0)
    return order.get(problem.place, -1), line, column


def _mistakes(document: dict[str, Any]) -> dict[KeyPath, str]:
    try:
        Policy.model_validate(document)
    except ValidationError as error:
        found = {tuple(details["loc"]): details for details in error.errors(include_url=False)}
        # An array of bad elements is said to be empty as well: one of the two is enough.
        inside = {place[:length] for place in found for length in range(len(place))}
        return {place: explain(found[place]) for place in found if place not in inside}
    return {}


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            inner = base.get(key)
            base[key] = inner = inner if isinstance(inner, dict) else {}
            _merge(inner, value)
        else:
            base[key] = value


def _blame(layers: list[Layer], contradiction: Contradiction) -> Problem:
    """The problem, at the key that was changed last: the other was there before."""

    def changed(path: KeyPath) -> int:
        giving = [index for index, layer in enumerate(layers) if layer.has(_replaced(path))]
        return max(giving, default=-1)

    path, must = contradiction.second, contradiction.second_must
    if changed(contradiction.first) > changed(contradiction.second):
        path, must = contradiction.first, contradiction.first_must
    return layers[changed(path)].problem(path, must)


def _replaced(path: KeyPath) -> KeyPath:
    """What is replaced when a layer gives this key: of an element its whole array."""
    indices = [index for index, key in enumerate(path) if isinstance(key, int)]
    return path[: indices[0]] if indices else path


def _stamp(path: Path) -> Stamp:
    """Not only the time of the last change: a file may be replaced by one as old, and its time
    may be set."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    now = time.time_ns()
    # File times are those of the kernel's last tick: of two changes within one the second does
    # not show. A file that has just changed equals nothing, so that it is looked at again.
    fresh = now if abs(now - found.st_ctime_ns) < SETTLED_NS else 0
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev, found.st_size, fresh
