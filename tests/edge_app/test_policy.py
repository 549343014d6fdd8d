"""Policy files: presets, layers, and mistakes reported with place and advice."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from edge_app.errors import EXIT_USAGE
from edge_app.governor import Policy, PolicyError, load_policy, presets
from edge_app.governor import policy as policy_module
from edge_app.governor.locator import locate
from edge_app.governor.policy_file import all_keys

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def problems(text: str, tmp_path: Path, overrides: tuple[str, ...] = ()) -> list[str]:
    """What is reported about a policy file, without the directory."""
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(PolicyError) as caught:
        load_policy(path, overrides=list(overrides))
    assert caught.value.exit_code == EXIT_USAGE
    return [problem.replace(str(path), "policy.toml") for problem in caught.value.problems]


def test_presets() -> None:
    assert presets() == ("balanced", "coolest", "fastest", "longest")
    assert [load_policy(None, name).name for name in presets()] == list(presets())


def test_balanced_is_what_the_defaults_are_and_has_every_key() -> None:
    assert load_policy(None) == Policy(name="balanced")
    source = Path(policy_module.__file__).parent.parent / "assets" / "presets" / "balanced.toml"
    # What has no value by default stands there as a comment.
    text = re.sub(r"^# (?=(until|capacity_wh) = )", "", source.read_text(), flags=re.MULTILINE)
    places = locate(text)
    written = {".".join(str(part) for part in path if isinstance(part, str)) for path in places}
    assert written == set(all_keys())


def test_presets_differ_in_the_direction_of_their_names() -> None:
    coolest, saver, balanced, fast = (
        load_policy(None, name) for name in ("coolest", "longest", "balanced", "fastest")
    )
    temperatures = [policy.thermal.control_c for policy in (coolest, saver, balanced, fast)]
    assert temperatures == sorted(temperatures) and len(set(temperatures)) == 4
    assert saver.confidence.start_bits == 2 < balanced.confidence.start_bits
    assert saver.levels.max_bits < balanced.levels.max_bits == fast.levels.max_bits
    assert saver.frame.target_fps < balanced.frame.target_fps
    assert (
        fast.battery.tiers[0].below < balanced.battery.tiers[0].below < saver.battery.tiers[0].below
    )


def test_every_key_is_described() -> None:
    models = [
        model
        for model in vars(policy_module).values()
        if isinstance(model, type) and issubclass(model, BaseModel)
    ]
    bare = [
        f"{model.__name__}.{name}"
        for model in models
        for name, info in model.model_fields.items()
        if not info.description
    ]
    assert len(models) > 8 and not bare


def test_layers(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n[thermal]\ncontrol_c = 75\n[battery]\ntiers = []\n')
    policy = load_policy(path, "fastest", ["thermal.control_c=76.5", "name=from the shell"])
    assert policy.thermal.control_c == 76.5 and policy.name == "from the shell"
    assert policy.thermal.on_c == 70.0 and policy.thermal.critical_c == 92.0, "from the preset"
    assert policy.battery.tiers == (), "an array replaces the preset's"


def test_all_mistakes_at_once_with_their_places(tmp_path: Path) -> None:
    text = """\
[levels]
max_bits = 12           # too many
[thermal]
controll_c = 3
target_fps = 3
zones = "cpu"
[battery]
tiers = [ { below = 40, max_bits = 6 },
          { below = 20, max_bits = 9 } ]
on_ac = "ignor"
required = "yes"
[stability]
raise_dwell_s = 0.5
guard_bits = nan
"""
    assert problems(text, tmp_path) == [
        (
            "policy.toml:2:1: error: levels.max_bits: must be at most 8 (got 12)\n"
            "    max_bits = 12           # too many"
        ),
        (
            'policy.toml:4:1: error: thermal.controll_c: unknown key; did you mean "control_c"?\n'
            "    controll_c = 3"
        ),
        (
            'policy.toml:5:1: error: thermal.target_fps: unknown key; did you mean "frame.target_fps"?\n'
            "    target_fps = 3"
        ),
        "policy.toml:6:1: error: thermal.zones: must be an array (got 'cpu')\n    zones = \"cpu\"",
        (
            "policy.toml:9:25: error: battery.tiers.1.max_bits: must be at most 8 (got 9)\n"
            "    { below = 20, max_bits = 9 } ]"
        ),
        (
            "policy.toml:10:1: error: battery.on_ac: must be 'ignore' or 'apply' (got 'ignor'); "
            'did you mean "ignore"?\n    on_ac = "ignor"'
        ),
        (
            "policy.toml:11:1: error: battery.required: must be true or false (got 'yes')\n"
            '    required = "yes"'
        ),
        (
            "policy.toml:13:1: error: stability.raise_dwell_s: must be at least 1 (got 0.5)\n"
            "    raise_dwell_s = 0.5"
        ),
        (
            "policy.toml:14:1: error: stability.guard_bits: must be a finite number (got nan)\n"
            "    guard_bits = nan"
        ),
    ]


def test_contradictions_are_reported_with_everything_else(tmp_path: Path) -> None:
    text = """\
schema = 2
[levels]
min_bits = 8
max_bits = 4
[thermal]
on_c = 90
[battery]
tiers = [ { below = 20, max_bits = 4 }, { below = 40, max_bits = 6 } ]
"""
    assert problems(text, tmp_path) == [
        (
            "policy.toml:1:1: error: schema: this version reads schema 1 (got 2); update edge-app or "
            "the policy\n    schema = 2"
        ),
        (
            "policy.toml:4:1: error: levels.max_bits: must be not below levels.min_bits = 8 (got 4)\n"
            "    max_bits = 4"
        ),
        # The preset's control_c was there before: the file is to blame.
        (
            "policy.toml:6:1: error: thermal.on_c: must be 2 or more below thermal.control_c = 78 "
            "(got 90)\n    on_c = 90"
        ),
        (
            "policy.toml:8:43: error: battery.tiers.1.below: must be below that of the tier before, "
            "20 (got 40)\n    tiers = [ { below = 20, max_bits = 4 }, { below = 40, max_bits = 6 } ]"
        ),
        (
            "policy.toml:8:55: error: battery.tiers.1.max_bits: must not be above that of the tier "
            "before, 4 (got 6)\n"
            "    tiers = [ { below = 20, max_bits = 4 }, { below = 40, max_bits = 6 } ]"
        ),
    ]


def test_syntax_error_has_a_place_and_other_layers_are_still_checked(tmp_path: Path) -> None:
    found = problems("[thermal]\non_c = 60%\n", tmp_path, ("levels.max=4",))
    assert re.match(r"policy\.toml:2:10: error: not valid TOML: .*\n    on_c = 60%$", found[0])
    assert found[1] == (
        "override 'levels.max=4': error: levels.max: unknown key; did you mean \"max_bits\"?"
    )


def test_tier_without_its_bound(tmp_path: Path) -> None:
    (found,) = problems("[[battery.tiers]]\nmax_bits = 4\n", tmp_path)
    assert found.startswith("policy.toml:1:1: error: battery.tiers.0.below: this key is needed")


def test_unterminated_and_undecodable_files(tmp_path: Path) -> None:
    (found,) = problems('name = "', tmp_path)
    assert found.startswith("policy.toml:1:9: error: not valid TOML: ")
    path = tmp_path / "latin.toml"
    path.write_bytes(b"schema = 1\nname = '\xe4'\n")
    with pytest.raises(PolicyError, match=r"latin.toml:2:1: error: this is not UTF-8"):
        load_policy(path)


def test_missing_file_and_unknown_preset(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read: No such file"):
        load_policy(tmp_path / "none.toml")
    with pytest.raises(PolicyError, match='did you mean "longest"'):
        load_policy(None, "longst")


@pytest.mark.parametrize("override", ["thermal.on_c", "=3", "thermal..on_c=3"])
def test_override_that_is_none(override: str) -> None:
    with pytest.raises(PolicyError, match="must be key=value"):
        load_policy(None, overrides=[override])


def test_values_are_not_converted(tmp_path: Path) -> None:
    found = problems('[levels]\nmin_bits = 2.0\nmax_bits = "8"\n', tmp_path)
    assert [problem.split("\n")[0] for problem in found] == [
        "policy.toml:2:1: error: levels.min_bits: must be a whole number (got 2.0)",
        "policy.toml:3:1: error: levels.max_bits: must be a whole number (got '8')",
    ]


# The locator ----------------------------------------------------------------------------------


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
