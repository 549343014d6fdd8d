"""Policies as text: the file that `policy init` writes, the effective policy with its origins,
differences, and what a key means."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from typing import Any, Final

from edge_app.policy.files import variable_name
from edge_app.policy.keys import (
    Key,
    children,
    example,
    keys,
    plain,
    value_of,
    values,
)
from edge_app.policy.model import Policy
from edge_app.policy.rules import rules_of
from edge_app.policy.toml import value_text

WIDTH: Final = 98
WORTH_CHANGING: Final = frozenset(
    {
        "schema",
        "name",
        "levels.max_bits",
        "frame.target_fps",
        "frame.deadline_ms",
        "confidence.start_bits",
        "thermal.control_c",
        "battery.tiers",
        "battery.until",
        "battery.reserve",
        "load.yield_to_others",
    }
)
"""What depends on the device's place and purpose; the rest is right for nearly all."""


def render(policy: Policy, comment: Callable[[str], str] | None = None) -> str:
    """A policy as TOML that gives the same policy again, with ``comment(dotted key)`` behind each
    value."""
    lines: list[tuple[str, str]] = []
    table = ""
    for name, key in values().items():
        value = value_of(policy, name)
        if value is None:
            continue
        if key.table != table:
            table = key.table
            lines += [("", ""), (f"[{table}]", "")]
        written = assignment(key, value).split("\n")
        lines += [(text, "") for text in written[:-1]]
        lines.append((written[-1], _printable(comment(name)) if comment else ""))
    width = min(40, max((len(text) for text, said in lines if said), default=0))
    return "\n".join(f"{text:<{width}}  # {said}" if said else text for text, said in lines) + "\n"


def assignment(key: Key, value: Any) -> str:
    """``control_c = 78.0``; arrays of tables with one table on a line."""
    if key.is_table and key.is_array and value:
        rows = "".join(f"    {value_text(row)},\n" for row in value)
        return f"{key.name} = [\n{rows}]"
    return f"{key.name} = {value_text(value)}"


def commented(policy: Policy, name: str, full: bool = False) -> str:
    """A policy file with an explanation above every key, to start a policy of one's own from.

    It has the keys that are worth changing and those in which ``policy`` differs from the
    defaults; with ``full`` all of them. Read again, it gives ``policy`` under the new ``name``.
    """
    policy = policy.model_copy(update={"name": name})
    different = {key for key, _, _ in changed_values(Policy(), policy)}
    shown = [key for key in values() if full or key in different | WORTH_CHANGING]
    opening = (
        "A policy of edge-app. It only needs the keys that it changes: remove what you do not "
        "care about. `edge-app policy explain KEY` tells more, `edge-app policy check` finds "
        "mistakes."
    )
    lines = _comment(opening)
    table = ""
    for dotted in shown:
        key, value = keys()[dotted], value_of(policy, dotted)
        if key.table != table:
            table = key.table
            lines += ["", *_comment(f"{_sentence(keys()[table].description)}."), f"[{table}]"]
        if not lines[-1].startswith("["):
            lines.append("")
        lines += _comment(_summary(key))
        if value is None:
            lines.append(f"# {key.name} = {example_text(key)}")
        else:
            lines.append(assignment(key, value))
    return "\n".join(lines) + "\n"


def changed_values(old: Policy, new: Policy) -> list[tuple[str, Any, Any]]:
    """The keys in which two policies differ, with both values; None where a key is left out."""
    pairs = ((name, value_of(old, name), value_of(new, name)) for name in values())
    return [(name, before, after) for name, before, after in pairs if before != after]


def differences(old: Policy, new: Policy) -> tuple[str, ...]:
    """What changes from one policy to another, one line for each key."""
    return tuple(
        f"{name}: {_shown(before)} -> {_shown(after)}"
        for name, before, after in changed_values(old, new)
    )


def explanation(key: Key, policy: Policy | None, origin: str) -> str:
    """All that there is to know about a key. ``policy``: the effective one, None if there is none
    and ``origin`` says why."""
    if key.is_table and not key.is_array:
        inner = listing(children(key.dotted))
        return f"[{key.dotted}]: {key.description}\n\n{inner}"
    facts = [
        ("what", _sentence(key.description)),
        ("value", key.allowed),
        ("default", "none: it may be left out" if key.default is None else _shown(key.default)),
    ]
    if key.required:
        facts[-1] = ("default", "none: it must be given")
    if key.dotted in values():
        if policy is not None:
            facts.append(("now", _shown(value_of(policy, key.dotted))))
        facts.append(("from", origin))
    facts += [("rule", rule) for rule in rules_of(key.dotted)]
    if key.is_table:
        facts += [
            ("each has", f"{inner.name}: {inner.description}") for inner in children(key.dotted)
        ]
    if key.dotted in values():
        facts += _examples(key)
    siblings = [other.name for other in children(key.table) if other.name != key.name]
    facts.append(("beside it", ", ".join(siblings)))
    return "\n".join([key.dotted, *_aligned(facts)])


def listing(shown: Iterable[Key]) -> str:
    """One line for each key: its name, its range and what it is."""
    rows = []
    for key in shown:
        if key.is_table and not key.is_array:
            rows.append((f"[{key.dotted}]", key.description))
        else:
            extent = f" ({key.range})" if key.range else ""
            rows.append((f"{key.dotted}", f"{key.description}{extent}"))
    return "\n".join(_aligned(rows))


def example_text(key: Key) -> str:
    """A value that could stand there, as TOML."""
    given = example(key)
    # A time is no JSON value and stands among the examples as its text.
    is_time = key.kind.startswith("a time")
    return str(given) if is_time else value_text(plain(given))


def _examples(key: Key) -> list[tuple[str, str]]:
    text = example_text(key)
    given = assignment(key, example(key)) if key.is_table else f"{key.name} = {text}"
    in_file = f"[{key.table}]\n{given}" if key.table else given
    # Shells take brackets and quotes for their own.
    shell = f"'{key.dotted}={text}'" if set(text) & set("[]{}\"' ") else f"{key.dotted}={text}"
    quoted = f"'{text}'" if set(text) & set("[]{}\"' ") else text
    found = [
        ("in a file", in_file),
        ("for one run", f"--set {shell}"),
        ("environment", f"{variable_name(key.dotted)}={quoted}"),
    ]
    if key.default is None:
        found.append(("taken back", f"--set {key.dotted}="))
    return found


def _printable(text: str) -> str:
    """A comment ends with its line, whatever characters a file's name has."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _summary(key: Key) -> str:
    text = f"{_sentence(key.description)}."
    rules = "".join(f" It {rule}." for rule in rules_of(key.dotted))
    if key.range:
        return f"{text} {_sentence(key.range)}.{rules}"
    if key.kind.startswith(('"', "true", "a time")):
        return f"{text} {_sentence(key.kind)}.{rules}"
    return f"{text}{rules}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in _wrapped(text, WIDTH - 2)]


def _wrapped(text: str, width: int) -> list[str]:
    """Paths and TOML stay whole, if need be on a line that is too long."""
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def _shown(value: Any) -> str:
    return "none" if value is None else value_text(value)


def _aligned(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Names and texts in two columns; the second is wrapped and keeps its own line breaks."""
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    lines = []
    for name, text in rows:
        wrapped = [
            part for line in text.split("\n") for part in _wrapped(line, WIDTH - width - 4) or [""]
        ]
        for index, part in enumerate(wrapped):
            lines.append(f"  {name if index == 0 else '':<{width}}  {part}".rstrip())
    return lines
