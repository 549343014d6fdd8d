"""Keys that are right alone and wrong together.

Looked for in plain values and not by the models, so that contradictions are reported with
everything else and not only once all else is right.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Final

from edge_app.policy.keys import keys
from edge_app.policy.locator import Path as KeyPath


@dataclass(frozen=True)
class Order:
    """``low`` + ``gap`` must not exceed ``high``; keys by their dotted names."""

    low: str
    high: str
    gap: float = 0.0

    @property
    def low_must(self) -> str:
        """What is asked of ``low``."""
        return f"must be {self.gap:g} or more below" if self.gap else "must not be above"

    @property
    def high_must(self) -> str:
        """What is asked of ``high``."""
        return f"must be {self.gap:g} or more above" if self.gap else "must not be below"


ORDERS: Final = (
    Order("levels.min_bits", "levels.max_bits"),
    Order("frame.min_fps", "frame.target_fps"),
    Order("thermal.on_c", "thermal.control_c", 2.0),
    Order("thermal.control_c", "thermal.critical_c", 2.0),
    Order("thermal.critical_c", "thermal.pause_c"),
    Order("stability.raise_dwell_s", "stability.raise_backoff_max_s"),
)


@dataclass(frozen=True)
class Contradiction:
    """Two keys that do not go together, and what each would have to be. They are the same where
    only one of them can be to blame."""

    first: KeyPath
    first_must: str
    second: KeyPath
    second_must: str


def rules_of(name: str) -> list[str]:
    """What the other keys ask of a key, in words."""
    asked = [f"{rule.low_must} {rule.high}" for rule in ORDERS if rule.low == name]
    asked += [f"{rule.high_must} {rule.low}" for rule in ORDERS if rule.high == name]
    if name == "frame.target_fps":
        asked = [f"{text}, unless it is 0" for text in asked]
    return asked


def contradictions(values: dict[str, Any], bad: Container[KeyPath]) -> list[Contradiction]:
    """What does not go together in ``values``, leaving out the keys in ``bad``: they are wrong
    alone already."""
    found = [item for rule in ORDERS for item in _disorder(rule, values, bad)]
    battery = values.get("battery")
    tiers = battery.get("tiers") if isinstance(battery, dict) else None
    return found + (_tier_disorder(tiers, bad) if isinstance(tiers, list) else [])


def _disorder(rule: Order, values: dict[str, Any], bad: Container[KeyPath]) -> list[Contradiction]:
    low, high = _number(rule.low, values, bad), _number(rule.high, values, bad)
    if low is None or high is None or low + rule.gap <= high:
        return []
    if rule.high == "frame.target_fps" and high == 0:
        return []
    return [
        Contradiction(
            _path(rule.low),
            f"{rule.low_must} {rule.high} = {high:g} (got {low:g}); give {high - rule.gap:g} or "
            f"less, or raise {rule.high}",
            _path(rule.high),
            f"{rule.high_must} {rule.low} = {low:g} (got {high:g}); give {low + rule.gap:g} or "
            f"more, or lower {rule.low}",
        )
    ]


def _tier_disorder(tiers: list[Any], bad: Container[KeyPath]) -> list[Contradiction]:
    found = []
    previous: tuple[float, int] | None = None
    for index, tier in enumerate(tiers):
        path: KeyPath = ("battery", "tiers", index)
        inner = [(*path, "below"), (*path, "max_bits")]
        if not isinstance(tier, dict) or path in bad or any(place in bad for place in inner):
            previous = None
            continue
        below, bits = tier["below"], tier["max_bits"]
        if previous is not None and below >= previous[0]:
            must = (
                f"must be below that of the tier before, {previous[0]:g} (got {below:g}); "
                "list the tiers from high to low charge"
            )
            found.append(Contradiction(inner[0], must, inner[0], must))
        if previous is not None and bits > previous[1]:
            must = (
                f"must not be above that of the tier before, {previous[1]} (got {bits}); less "
                "charge cannot allow more"
            )
            found.append(Contradiction(inner[1], must, inner[1], must))
        previous = float(below), int(bits)
    return found


def _number(name: str, values: dict[str, Any], bad: Container[KeyPath]) -> float | None:
    """A key's number, the default if it is not given; None if it is no number."""
    path = _path(name)
    if path in bad or path[:1] in bad:
        return None
    value: Any = values
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        value = keys()[name].default
    return float(value)


def _path(name: str) -> KeyPath:
    return tuple(name.split("."))
