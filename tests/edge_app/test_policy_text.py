"""Policies as text, key explanations and the JSON Schema: all of it made from the model."""

from __future__ import annotations

import tomllib
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_samples import CONTRADICTIONS, KEYS, NUMBERS
from policy_samples import VALUES as WRONG_VALUES

from edge_app.errors import AppError
from edge_app.governor import Policy, load_policy, presets
from edge_app.policy import model as policy_module
from edge_app.policy.keys import keys, value_of, values
from edge_app.policy.reference import MARK, reference, renewed, rewrite
from edge_app.policy.schema import DIALECT, json_schema
from edge_app.policy.text import (
    WIDTH,
    WORTH_CHANGING,
    commented,
    differences,
    explanation,
    listing,
    render,
)
from edge_app.policy.toml import dotted, key_text, value_text

PRESETS = Path(policy_module.__file__).parent.parent / "assets" / "presets"
DOCUMENT = Path(__file__).parents[2] / "docs" / "policy.md"
UNTIL = load_policy(None, overrides=["battery.until=18:00:00", "battery.capacity_wh=50"])


# TOML -----------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXTS
    | st.times()
    | st.dates()
    | st.datetimes()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=100)
@given(TEXTS, VALUES)
def test_values_are_read_as_they_are_written(key: str, value: object) -> None:
    assert tomllib.loads(f"{key_text(key)} = {value_text(value)}") == {key: value}


def test_values_that_toml_has_not() -> None:
    with pytest.raises(ValueError, match="no notation for None"):
        value_text([None])
    assert value_text(float("nan")) == "nan" and value_text(float("-inf")) == "-inf"
    assert value_text((1, {"a b": date(2030, 1, 2)})) == '[1, { "a b" = 2030-01-02 }]'
    assert value_text(datetime(2030, 1, 2, 3)) == "2030-01-02T03:00:00"
    assert dotted(("battery", "tiers", 1, "a.b")) == 'battery.tiers.1."a.b"'


# Whole policies -------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [*map(load_policy, [None] * 4, presets()), UNTIL])
def test_a_policy_is_read_as_it_is_shown(policy: Policy) -> None:
    for text in (render(policy), render(policy, lambda name: f"origin of {name}")):
        assert Policy.model_validate(tomllib.loads(text)) == policy
    assert "tiers = [\n    { below = " in text and "# origin of battery.tiers" in text


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("preset", presets())
def test_init_gives_the_preset_again(preset: str, full: bool, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(commented(load_policy(None, preset), "mine", full))
    policy = load_policy(path)
    assert policy == load_policy(None, preset).model_copy(update={"name": "mine"})


def test_init_explains_every_key_that_it_writes() -> None:
    for full in (False, True):
        text = commented(load_policy(None), "mine", full)
        assert max(map(len, text.split("\n"))) <= 100
        # What has no default stands there as an example.
        live = text.replace("# until = ", "until = ").replace("# capacity_wh = ", "capacity_wh = ")
        document = tomllib.loads(live)
        written = {
            name
            for name in values()
            if name in document
            or name.rpartition(".")[2] in document.get(name.rpartition(".")[0], {})
        }
        assert written == (set(values()) if full else WORTH_CHANGING)
        for name in written:
            said = " ".join(text.replace("\n# ", " ").split()).lower()
            assert keys()[name].description.lower() in said
            assert keys()[name].bounds in said


def test_no_file_name_ends_a_comment() -> None:
    text = render(UNTIL, lambda name: "user: odd\nname = 3\r.toml")
    assert Policy.model_validate(tomllib.loads(text)) == UNTIL


def test_differences_name_both_values() -> None:
    old, new = load_policy(None), load_policy(None, "longest", ["battery.until=18:00:00"])
    assert differences(old, old) == ()
    found = differences(old, new)
    assert "thermal.control_c: 78.0 -> 68.0" in found
    assert "battery.until: none -> 18:00:00" in found
    assert (
        "battery.tiers: [{ below = 40.0, max_bits = 6 }, { below = 20.0, max_bits = 4 }, "
        "{ below = 10.0, max_bits = 2 }] -> [{ below = 70.0, max_bits = 4 }, "
        "{ below = 30.0, max_bits = 2 }]"
    ) in found
    changed = {line.split(": ")[0] for line in found}
    assert changed == {name for name in values() if value_of(old, name) != value_of(new, name)}


# Keys -----------------------------------------------------------------------------------------


def test_explanation_of_a_key() -> None:
    text = explanation(keys()["thermal.control_c"], UNTIL, "user: policy.toml:3")
    assert text.split("\n") == [
        "thermal.control_c",
        "  what         Temperature not to be exceeded for long",
        "  value        a number, 0 to 125 °C",
        "  default      78.0",
        "  now          78.0",
        "  from         user: policy.toml:3",
        "  rule         must be 2 or more below thermal.critical_c",
        "  rule         must be 2 or more above thermal.on_c",
        "  in a file    [thermal]",
        "               control_c = 72.0",
        "  for one run  --set thermal.control_c=72.0",
        "  environment  EDGE_APP_POLICY__THERMAL__CONTROL_C=72.0",
        "  beside it    zones, use_trips, on_c, critical_c, pause_c, forecast_s, sustainable_bits,",
        "               integral_s, max_age_s, required",
    ]


def test_explanations_of_other_kinds_of_keys() -> None:
    tiers = explanation(keys()["battery.tiers"], None, "not known")
    assert "from         not known" in tiers and "each has     below: " in tiers
    assert "--set 'battery.tiers=[{ below = 50, max_bits = 4 }, " in tiers
    until = explanation(keys()["battery.until"], UNTIL, "--set")
    assert "none: it may be left out" in until and "now          18:00:00\n" in until
    assert "--set battery.until=18:00:00\n" in until
    assert "  taken back   --set battery.until=\n" in until
    below = explanation(keys()["battery.tiers.below"], UNTIL, "default")
    assert "none: it must be given" in below and "--set" not in below
    table = explanation(keys()["energy"], UNTIL, "default")
    assert table.startswith("[energy]: power, as long") and "energy.active_w  power that" in table


@pytest.mark.parametrize("name", values())
def test_examples_in_explanations_are_valid(name: str, tmp_path: Path) -> None:
    text = explanation(keys()[name], UNTIL, "default")
    assert max(map(len, text.split("\n"))) <= WIDTH
    rows = text.split("\n")
    start = next(index for index, row in enumerate(rows) if row.startswith("  in a file"))
    end = next(index for index, row in enumerate(rows) if row.startswith("  for one run"))
    path = tmp_path / "example.toml"
    path.write_text("\n".join(row[15:] for row in rows[start:end]))
    assert value_of(load_policy(path), name) is not None


def test_the_list_of_keys_has_all_of_them() -> None:
    listed = listing(keys().values())
    assert all(f"  {name}  " in listed or f"  [{name}]  " in listed for name in keys())


# The JSON Schema ------------------------------------------------------------------------------


def as_json(value: Any) -> Any:
    """TOML as JSON tools see it: times become texts."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value.isoformat() if isinstance(value, (time, date)) else value


def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


def test_the_schema_accepts_presets_and_complete_policies() -> None:
    texts = [(PRESETS / f"{name}.toml").read_text() for name in presets()]
    texts += [render(UNTIL), commented(UNTIL, "mine", full=True)]
    for text in texts:
        validator().validate(as_json(tomllib.loads(text)))
    assert json_schema()["$schema"] == DIALECT


@pytest.mark.parametrize("text", [row[0] for row in WRONG_VALUES + KEYS])
def test_the_schema_refuses_what_the_model_refuses(text: str) -> None:
    assert not validator().is_valid(as_json(tomllib.loads(text)))


@pytest.mark.parametrize("text", [row[0] for row in NUMBERS + CONTRADICTIONS])
def test_what_a_schema_cannot_say_is_left_to_check(text: str) -> None:
    assert validator().is_valid(as_json(tomllib.loads(text)))


def test_the_schema_tells_everything_about_a_key() -> None:
    control = json_schema()["properties"]["thermal"]["properties"]["control_c"]
    assert control == {
        "description": "temperature not to be exceeded for long [°C]",
        "unit": "°C",
        "type": "number",
        "minimum": 0,
        "maximum": 125,
        "default": 78.0,
    }
    until = json_schema()["properties"]["battery"]["properties"]["until"]
    assert until["type"] == "string" and until["examples"] == ["18:00:00"]

    def tables(entry: dict[str, Any]) -> list[dict[str, Any]]:
        inner = list(entry.get("properties", {}).values())
        inner += [entry["items"]] if "items" in entry else []
        found = [table for item in inner for table in tables(item)]
        return [entry, *found] if entry.get("type") == "object" else found

    found = tables(json_schema())
    assert len(found) == 1 + sum(key.is_table for key in keys().values())
    assert all(table["additionalProperties"] is False for table in found)
    assert all(entry["description"] for table in found for entry in table["properties"].values())
    assert "null" not in str(json_schema())


# The document ---------------------------------------------------------------------------------


def test_the_reference_in_the_document_is_that_of_the_model() -> None:
    """To write it anew: `python -m edge_app.policy.reference docs/policy.md`."""
    text = DOCUMENT.read_text()
    assert text.count(MARK) == 1 and text.partition(MARK)[2] == reference()


def test_the_document_is_renewed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "guide.md"
    path.write_text(f"# Guide\n{MARK}old")
    rewrite(path)
    assert path.read_text() == f"# Guide\n{MARK}{reference()}"
    assert [entry.name for entry in tmp_path.iterdir()] == ["guide.md"]
    with pytest.raises(AppError, match="no line <!-- from the model -->"):
        renewed("# Guide\n")


def test_policies_in_the_document_are_valid(tmp_path: Path) -> None:
    guide = DOCUMENT.read_text()
    examples = [block.partition("```")[0] for block in guide.split("```toml\n")[1:]]
    assert len(examples) >= 3
    for number, example in enumerate(examples):
        path = tmp_path / f"{number}.toml"
        path.write_text(example)
        assert load_policy(path) != load_policy(None)
