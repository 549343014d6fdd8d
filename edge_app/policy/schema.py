"""The policy as a JSON Schema (draft 2020-12), with which editors complete and check TOML."""

from __future__ import annotations

from typing import Any, Final

from edge_app.policy.keys import example, keys, resolved
from edge_app.policy.model import SCHEMA, Policy

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
LOCAL_TIME: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?$"
"""What a TOML local time becomes as a JSON text; the format "time" would ask for an offset."""

TAKEN: Final = (
    "type",
    "const",
    "enum",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "minLength",
    "minItems",
    "items",
)
"""What is taken over from the model's schema as it is."""


def json_schema() -> dict[str, Any]:
    """The schema of a policy file. Numbers carry their ``unit`` and name it in the description,
    which editors show; nothing may be null, because TOML has no null."""
    schema = Policy.model_json_schema(by_alias=True)
    models = schema.pop("$defs")
    return {
        "$schema": DIALECT,
        "title": f"edge-app policy, schema {SCHEMA}",
        **_table(schema, models, ""),
    }


def _table(schema: dict[str, Any], models: dict[str, Any], prefix: str) -> dict[str, Any]:
    found = {
        "description": " ".join(schema["description"].split()).replace("``", "`"),
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: _entry(f"{prefix}{name}", entry, models)
            for name, entry in schema["properties"].items()
        },
    }
    return {**found, "required": schema["required"]} if "required" in schema else found


def _entry(dotted: str, entry: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    key, value = keys()[dotted], resolved(entry, models)
    described = f"{key.description} [{key.unit}]" if key.unit else key.description
    if key.is_table and not key.is_array:
        return {**_table(value, models, f"{dotted}."), "description": described}
    found: dict[str, Any] = {"description": described}
    if key.unit:
        found["unit"] = key.unit
    if value.get("format") == "time":
        found |= {"type": "string", "pattern": LOCAL_TIME, "examples": [example(key)]}
    elif key.is_table:
        inner = _table(resolved(value["items"], models), models, f"{dotted}.")
        found |= {"type": "array", "items": inner}
    else:
        found |= {name: value[name] for name in TAKEN if name in value}
    if key.default is not None:
        found["default"] = key.default
    return found
