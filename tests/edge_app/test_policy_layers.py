"""Layers: which wins, where each value comes from, and mistakes in all of them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.governor import Policy, PolicyError, Resolved, load_policy, resolve
from edge_app.policy.files import variable_name
from edge_app.policy.keys import example, keys, plain, value_of, values
from edge_app.policy.layers import Sources, load, user_file
from edge_app.policy.text import example_text, render


class Machine:
    """Somebody's machine: a home and a directory of drop-ins."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.system = root / "etc" / "policy.d"
        self.user = root / "config" / "edge-app" / "policy.toml"
        self.file = root / "mine.toml"

    def write(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def resolve(
        self,
        *overrides: str,
        preset: str = "balanced",
        variables: Mapping[str, str] | None = None,
    ) -> Resolved:
        environment = {"XDG_CONFIG_HOME": str(self.root / "config"), **(variables or {})}
        path = self.file if self.file.exists() else None
        return resolve(path, preset, overrides, environment, self.system)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_each_layer_is_stronger_than_the_one_before(machine: Machine) -> None:
    def now() -> tuple[float, str]:
        resolved = machine.resolve(*overrides, preset=preset, variables=variables)
        return resolved.policy.frame.deadline_ms, resolved.origin("frame.deadline_ms")

    preset, variables, overrides = "fastest", dict[str, str](), list[str]()
    assert now() == (100, "default")
    preset = "longest"
    value, origin = now()
    assert value == 200 and origin.startswith("preset: ") and origin.endswith("/longest.toml:11")
    first = machine.write(machine.system / "10-site.toml", "\n[frame]\ndeadline_ms = 110\n")
    assert now() == (110, f"system: {first}:3")
    second = machine.write(machine.system / "20-rack.toml", "[frame]\ndeadline_ms = 120\n")
    assert now() == (120, f"system: {second}:2")
    machine.write(machine.user, "frame.deadline_ms = 130\n")
    assert now() == (130, f"user: {machine.user}:1")
    machine.write(machine.file, "[frame]\n# slow\ndeadline_ms = 140\n")
    assert now() == (140, f"--policy: {machine.file}:3")
    variables["EDGE_APP_POLICY__FRAME__DEADLINE_MS"] = "150"
    assert now() == (150, "environment: EDGE_APP_POLICY__FRAME__DEADLINE_MS")
    overrides.append("frame.deadline_ms=160")
    assert now() == (160, "--set")
    overrides.append("frame.deadline_ms=170")
    assert now() == (170, "--set"), "the last of two"


def test_tables_are_merged_and_arrays_replaced(machine: Machine) -> None:
    machine.write(machine.user, "[thermal]\non_c = 60\nzones = ['soc']\n")
    machine.write(
        machine.file,
        "[thermal]\ncontrol_c = 70\nzones = ['cpu', 'gpu']\n"
        "[[battery.tiers]]\nbelow = 50\nmax_bits = 4\n",
    )
    resolved = machine.resolve()
    thermal = resolved.policy.thermal
    assert (thermal.on_c, thermal.control_c, thermal.zones) == (60, 70, ("cpu", "gpu"))
    assert [tier.below for tier in resolved.policy.battery.tiers] == [50]
    assert resolved.origin("battery.tiers") == f"--policy: {machine.file}:4"
    assert resolved.origins["thermal.on_c"] == f"user: {machine.user}:2"


def test_every_value_has_an_origin(machine: Machine) -> None:
    balanced = machine.resolve().origins
    assert list(balanced) == list(values())
    silent = {name for name, origin in balanced.items() if origin == "default"}
    assert silent == {"battery.until", "battery.capacity_wh"}
    for name, origin in balanced.items():
        if name not in silent:
            file, _, line = origin.removeprefix("preset: ").rpartition(":")
            written = Path(file).read_text().split("\n")[int(line) - 1]
            assert written.startswith(f"{name.rpartition('.')[2]} = ")


def test_drop_ins_in_the_order_of_their_names(machine: Machine) -> None:
    for name, bits in (("b.toml", 4), ("a.toml", 2), (".c.toml", 8), ("d.toml~", 8), ("e", 8)):
        machine.write(machine.system / name, f"levels.max_bits = {bits}\n")
    resolved = machine.resolve()
    assert resolved.policy.levels.max_bits == 4
    names = [Path(layer.place).name for layer in resolved.layers if layer.kind == "system"]
    assert names == ["a.toml", "b.toml"]


def test_mistakes_in_all_layers_at_once(machine: Machine) -> None:
    drop_in = machine.write(machine.system / "10.toml", "[thermal]\ncontrol_c = 500\n")
    machine.write(machine.system / "20.toml", "[thermal\n")
    machine.write(machine.user, "[thermal]\nfoo = 1\n")
    machine.write(machine.file, "levels.max_bits = 9\n")
    variables = {
        "EDGE_APP_POLICY__BATTERY__UNTIL": "18:00",
        "EDGE_APP_POLICY__THERMAL__CONTROLL_C": "70",
        "EDGE_APP_POLICY__": "1",
    }
    with pytest.raises(PolicyError) as caught:
        machine.resolve("thermal.control_c=75", "load.step_s=soon", variables=variables)
    found = [(problem.place, problem.key) for problem in caught.value.problems]
    assert found == [
        (str(machine.system / "20.toml"), "thermal"),
        # Though a stronger layer gives another value.
        (str(drop_in), "thermal.control_c"),
        (str(machine.user), "thermal.foo"),
        (str(machine.file), "levels.max_bits"),
        ("environment", '""'),
        ("environment", "battery.until"),
        ("environment", "thermal.controll_c"),
        ("--set", "load.step_s"),
    ]
    texts = [str(problem) for problem in caught.value.problems]
    assert texts[5] == (
        'environment: error: battery.until: must be a time of day without quotes (got "18:00"); '
        "write 18:00:00 without quotes\n    EDGE_APP_POLICY__BATTERY__UNTIL=18:00"
    )
    assert texts[7] == (
        '--set: error: load.step_s: must be a number (got "soon"); give a number, more than 0, '
        "at most 86400 s\n    load.step_s=soon"
    )


def test_the_layer_that_came_last_is_to_blame_for_a_contradiction(machine: Machine) -> None:
    machine.write(machine.user, "[thermal]\non_c = 70\n")
    with pytest.raises(PolicyError) as caught:
        machine.resolve("thermal.control_c=71")
    (problem,) = caught.value.problems
    assert (problem.place, problem.key) == ("--set", "thermal.control_c")
    assert "2 or more above thermal.on_c = 70 (got 71); give 72 or more" in problem.what
    machine.write(machine.file, "[thermal]\non_c = 77\n")
    with pytest.raises(PolicyError) as caught:
        machine.resolve()
    (problem,) = caught.value.problems
    assert (problem.place, problem.key) == (str(machine.file), "thermal.on_c")


def test_no_contradiction_is_made_up_of_a_layer_that_cannot_be_read(machine: Machine) -> None:
    # With the preset that was meant, 60 °C is well above its thermal.on_c.
    with pytest.raises(PolicyError) as caught:
        machine.resolve("thermal.control_c=60", preset="coolst")
    (problem,) = caught.value.problems
    assert problem.what == 'there is no such preset; did you mean "coolest"?'


def test_what_is_not_there_is_no_layer(machine: Machine) -> None:
    assert machine.resolve().policy == Policy(name="balanced")
    # A file in the place of the directory, or no home at all: as if there were nothing.
    machine.write(machine.system, "")
    assert resolve(None, environment={}, system=machine.system).policy == Policy(name="balanced")


def test_what_is_there_and_cannot_be_read_is_a_mistake(machine: Machine) -> None:
    machine.user.mkdir(parents=True)
    (machine.system / "x.toml").mkdir(parents=True)
    with pytest.raises(PolicyError) as caught:
        machine.resolve()
    assert [problem.what for problem in caught.value.problems] == [
        "the policy cannot be read: Is a directory; check the path and its permissions"
    ] * 2


def test_a_directory_that_cannot_be_listed_is_a_mistake(tmp_path: Path) -> None:
    impossible = tmp_path / ("x" * 300)
    with pytest.raises(PolicyError, match="the directory cannot be listed: File name too long"):
        resolve(environment={}, system=impossible)


def test_load_policy_reads_no_machine_layers(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.write(machine.user, "levels.max_bits = 4\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(machine.root / "config"))
    monkeypatch.setenv("EDGE_APP_POLICY__LEVELS__MIN_BITS", "4")
    assert load_policy(None).levels == Policy().levels
    assert resolve(system=None).policy.levels.max_bits == 4
    assert resolve(system=None).policy.levels.min_bits == 4


def test_where_the_users_policy_is() -> None:
    name = "edge-app/policy.toml"
    assert user_file({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == Path("/x", name)
    assert user_file({"HOME": "/h"}) == Path("/h/.config", name)
    assert user_file({"XDG_CONFIG_HOME": "relative", "HOME": "/h"}) == Path("/h/.config", name)
    assert user_file({"XDG_CONFIG_HOME": "", "HOME": ""}) is None
    assert user_file({}) is None


def test_every_key_can_be_given_by_every_layer(machine: Machine) -> None:
    for name, key in values().items():
        wanted = plain(tomllib.loads(f"x = {example_text(key)}")["x"])
        given = example_text(key)
        variable = {variable_name(name): given}
        for resolved in (
            machine.resolve(f"{name}={given}"),
            machine.resolve(variables=variable),
        ):
            assert value_of(resolved.policy, name) == wanted, name
            assert resolved.origin(name) != "default"
    assert variable_name("thermal.control_c") == "EDGE_APP_POLICY__THERMAL__CONTROL_C"
    assert all(example(key) is not None for key in values().values())


def test_words_need_no_quotes_on_the_command_line(machine: Machine) -> None:
    resolved = machine.resolve("battery.on_ac=apply", "name= the left one ", "levels.max_bits = 4")
    assert resolved.policy.battery.on_ac == "apply" and resolved.policy.name == "the left one"
    assert resolved.policy.levels.max_bits == 4
    # A line break is no way to give a second key.
    with pytest.raises(PolicyError, match=r"thermal.on_c: must be a number"):
        machine.resolve("thermal.on_c=3\nx=4")


def test_nothing_takes_back_a_key_that_may_be_left_out(machine: Machine) -> None:
    machine.write(machine.user, "battery.until = 18:00:00\n")
    assert machine.resolve().policy.battery.until is not None
    resolved = machine.resolve("battery.until=")
    assert resolved.policy.battery.until is None and resolved.origin("battery.until") == "--set"
    variables = {"EDGE_APP_POLICY__BATTERY__UNTIL": " "}
    assert machine.resolve(variables=variables).policy.battery.until is None
    with pytest.raises(PolicyError, match=r"frame.min_fps: must be a number \(got nothing\)"):
        machine.resolve("frame.min_fps=")


NUMBERS = [
    name for name, key in values().items() if key.kind == "a number" and " to " in key.bounds
]


@st.composite
def documents(draw: st.DrawFn) -> dict[str, float]:
    chosen = draw(st.lists(st.sampled_from(NUMBERS), unique=True, max_size=5))
    found = {}
    for name in chosen:
        low, high = (float(bound) for bound in keys()[name].bounds.split(" to "))
        found[name] = draw(st.floats(low, high, allow_subnormal=False))
    return found


@settings(deadline=None, max_examples=25)
@given(st.lists(documents(), min_size=1, max_size=4))
def test_the_last_word_on_each_key_wins_and_is_named(layers: list[dict[str, float]]) -> None:
    overrides = [f"{name}={value!r}" for layer in layers for name, value in layer.items()]
    try:
        resolved = load(Sources(overrides=tuple(overrides)))
    except PolicyError as error:
        # Single values are right: only two keys together can be wrong.
        assert all(" or more " in str(p) or "must not be" in str(p) for p in error.problems)
        return
    last = {name: value for layer in layers for name, value in layer.items()}
    for name, value in last.items():
        assert value_of(resolved.policy, name) == value
        assert resolved.origin(name) == "--set"
    untouched = set(values()) - set(last)
    assert all(
        value_of(resolved.policy, name) == value_of(load_policy(None), name) for name in untouched
    )
    # What is shown is the same policy again.
    again = tomllib.loads(render(resolved.policy, resolved.origin))
    assert Policy.model_validate(again) == resolved.policy
