"""The locator: where keys stand, in any TOML document."""

from __future__ import annotations

import tomllib

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_app.policy.locator import locate

unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def test_locator_knows_all_of_toml() -> None:
    text = '''\
# a comment with a = 1
title = "x # no comment"   # one
"quoted key" = 1
a.b . c = 2
[table."dotted.name"]
multi = """
fake = 1
"""
literal = \'\'\'
[not.a.table]\'\'\'
array = [ 1, # one
  { x = 1, y = [ "]", 2 ] }, ]
[[list]]
v = 1
[list.sub]
w = 2
[[list]]
v = 3
'''
    tomllib.loads(text)
    found = {path: (place.line, place.column) for path, place in locate(text).items()}
    assert found[("title",)] == (2, 1)
    assert found[("quoted key",)] == (3, 1)
    assert found["a", "b", "c"] == (4, 7)
    assert found["table", "dotted.name"] == (5, 1)
    assert found["table", "dotted.name", "literal"] == (9, 1)
    assert found["table", "dotted.name", "array", 1, "y"] == (12, 12)
    assert found["table", "dotted.name", "array", 1, "y", 1] == (12, 23)
    assert found["list", 0, "v"] == (14, 1)
    assert found["list", 0, "sub", "w"] == (16, 1)
    assert found["list", 1, "v"] == (18, 1)
    assert ("not", "a", "table") not in found and ("fake",) not in found


KEYS = st.from_regex(r"[a-z]{1,4}", fullmatch=True)
VALUES = st.recursive(
    st.integers() | st.booleans() | st.text("ab]}[{#,='\" ", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def to_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {to_toml(item)}" for key, item in value.items()) + " }"
    return str(value)


def paths_of(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, item in value.items():
            found |= paths_of(item, (*path, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            found |= paths_of(item, (*path, index))
    return found


@unhurried
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_locator_finds_every_key_of_any_document(values: dict[str, object]) -> None:
    text = "".join(f"{key} = {to_toml(value)} # x = 1\n" for key, value in values.items())
    assert tomllib.loads(text) == values
    places = locate(text)
    assert set(places) == paths_of(values)
    lines = text.split("\n")
    for path, place in places.items():
        if isinstance(path[-1], str):
            assert lines[place.line - 1][place.column - 1 :].startswith(path[-1])
