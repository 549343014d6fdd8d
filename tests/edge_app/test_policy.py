"""The model of a policy, the shipped presets, and what its keys are said to be."""

from __future__ import annotations

import re
from datetime import time
from pathlib import Path

import pytest
from pydantic import BaseModel

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.governor import Policy, load_policy, presets
from edge_app.policy import model as policy_module
from edge_app.policy.keys import find, keys, plain, value_of, values
from edge_app.policy.locator import locate
from edge_app.policy.model import zone_matches

PRESETS = Path(policy_module.__file__).parent.parent / "assets" / "presets"


def test_presets() -> None:
    assert presets() == ("balanced", "coolest", "fastest", "longest")
    assert [load_policy(None, name).name for name in presets()] == list(presets())


def test_balanced_is_what_the_defaults_are_and_has_every_key() -> None:
    assert load_policy(None) == Policy(name="balanced")
    # What has no value by default stands there as a comment.
    written = (PRESETS / "balanced.toml").read_text()
    text = re.sub(r"^# (?=(until|capacity_wh) = )", "", written, flags=re.MULTILINE)
    assert text.count("until = ") == written.count("# until = ") == 1
    places = locate(text)
    found = {".".join(part for part in path if isinstance(part, str)) for path in places}
    assert found == set(keys())


def test_presets_differ_in_the_direction_of_their_names() -> None:
    coolest, longest, balanced, fastest = (
        load_policy(None, name) for name in ("coolest", "longest", "balanced", "fastest")
    )
    temperatures = [policy.thermal.control_c for policy in (coolest, longest, balanced, fastest)]
    assert temperatures == sorted(temperatures) and len(set(temperatures)) == 4
    assert longest.levels.max_bits < balanced.levels.max_bits == fastest.levels.max_bits
    assert longest.frame.target_fps < coolest.frame.target_fps < balanced.frame.target_fps
    assert longest.confidence.start_bits == 2 < balanced.confidence.start_bits
    bounds = [policy.battery.tiers[0].below for policy in (fastest, balanced, longest)]
    assert bounds == sorted(bounds) and len(set(bounds)) == 3


def test_every_key_is_described_and_every_number_has_its_unit() -> None:
    models = [
        model
        for model in vars(policy_module).values()
        if isinstance(model, type) and issubclass(model, BaseModel)
    ]
    fields = [info for model in models for info in model.model_fields.values()]
    assert len(models) > 10 and all(info.description for info in fields)
    pure = {"schema", "confidence.escalate_below"}
    bare = [
        name
        for name, key in keys().items()
        if key.kind.endswith("number") and not key.unit and name not in pure
    ]
    assert not bare
    endings = {"_c": "°C", "_s": "s", "_ms": "ms", "_w": "W", "_wh": "Wh", "_bits": "bits"}
    for name, key in keys().items():
        ending = re.search(r"(?<!per)_[a-z]+$", name)
        if ending and ending[0] in endings and not name.endswith("max_per_s"):
            assert key.unit == endings[ending[0]], name


def test_bounds_in_words_are_those_of_the_model() -> None:
    assert keys()["thermal.control_c"].allowed == "a number, 0 to 125 °C"
    assert keys()["frame.min_fps"].allowed == "a number, more than 0, at most 1000 frames/s"
    assert keys()["battery.reserve"].allowed == "a number, 0 to 90 %"
    assert keys()["battery.on_ac"].allowed == '"ignore" or "apply"'
    assert keys()["battery.until"].allowed == "a time of day without quotes"
    assert keys()["battery.tiers"].allowed == "an array of tables"
    # Of two bounds on the same key pydantic would keep only one.
    for name, key in values().items():
        low = re.fullmatch(r"(more than )?([\d.]+)(?: to |, at most )([\d.]+)", key.bounds)
        if low is not None:
            for bad in (float(low[2]) - (0 if low[1] else 1), float(low[3]) + 1):
                number = int(bad) if key.kind == "a whole number" else bad
                with pytest.raises(AppError, match=name.replace(".", r"\.")):
                    load_policy(None, overrides=[f"{name}={number}"])


def test_defaults_of_the_keys_are_those_of_the_model() -> None:
    assert {name: key.default for name, key in values().items()} == {
        name: value_of(Policy(), name) for name in values()
    }


def test_layers_of_load_policy(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\n[thermal]\ncontrol_c = 75\n[battery]\ntiers = []\nuntil = 18:30:00\n'
    )
    policy = load_policy(path, "fastest", ["thermal.control_c=76.5", "name=from the shell"])
    assert policy.thermal.control_c == 76.5 and policy.name == "from the shell"
    assert policy.thermal.on_c == 70.0 and policy.thermal.critical_c == 92.0, "from the preset"
    assert policy.battery.tiers == (), "an array replaces the preset's"
    assert policy.battery.until == time(18, 30)
    assert load_policy(None, overrides=["battery.until=06:15:30"]).battery.until == time(6, 15, 30)


def test_find_a_key() -> None:
    assert find("control_c").dotted == "thermal.control_c"
    assert find("[battery]").dotted == "battery"
    for name, advice in (
        ("required", r"which of thermal\.required, battery\.required\?"),
        ("thermal.controll_c", r"did you mean thermal\.control_c"),
        ("battery.control_c", r"thermal\.control_c"),
        ("zzz", r"`edge-app policy explain` lists all"),
    ):
        with pytest.raises(AppError, match=advice) as caught:
            find(name)
        assert caught.value.exit_code == EXIT_USAGE


def test_plain_values_are_what_toml_holds() -> None:
    assert plain(Policy().battery.tiers) == [
        {"below": 40.0, "max_bits": 6},
        {"below": 20.0, "max_bits": 4},
        {"below": 10.0, "max_bits": 2},
    ]
    assert value_of(Policy(), "schema") == 1


def test_zones_are_named_by_type() -> None:
    assert zone_matches("CPU-thermal", "cpu*") and zone_matches("acpitz#2", "acpitz")
    assert not zone_matches("gpu-thermal", "cpu*")
