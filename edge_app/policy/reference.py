"""All keys of a policy as Markdown. `python -m edge_app.policy.reference docs/policy.md`
writes them into the document anew."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.policy.keys import Key, children, keys
from edge_app.policy.rules import rules_of
from edge_app.policy.toml import value_text

MARK: Final = "<!-- from the model -->\n"
"""The line of the document below which everything is made here."""


def reference() -> str:
    """A table of Markdown for each table of the policy."""
    top = [key for key in children("") if key.is_value]
    parts = [_section("### At the top", "", top)]
    for table in (key for key in keys().values() if key.is_table):
        title = f"[[{table.dotted}]]" if table.is_array else f"[{table.dotted}]"
        inner = [key for key in children(table.dotted) if key.is_value]
        parts.append(_section(f"### `{title}`: {table.description}", table.dotted, inner))
    return "\n".join(parts)


def renewed(document: str) -> str:
    """The document with the reference of now. AppError if it has no place for it."""
    guide, mark, _ = document.partition(MARK)
    if not mark:
        raise AppError(f"no line {MARK.strip()} in the document; add it at its end", EXIT_USAGE)
    return guide + mark + reference()


def _section(heading: str, table: str, shown: list[Key]) -> str:
    rows = ["", heading, "", "| key | what | value | default |", "|---|---|---|---|"]
    for key in shown:
        default = "" if key.default is None else f"`{value_text(key.default)}`"
        default = "must be given" if key.required else default
        rules = "".join(f"; {rule}" for rule in rules_of(key.dotted)).replace(f"{table}.", "")
        rows.append(f"| `{key.name}` | {key.description} | {key.allowed}{rules} | {default} |")
    return "\n".join(rows) + "\n"


def rewrite(path: Path) -> None:
    """Put the reference of now into a document: beside it first, then in its place."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(renewed(path.read_text("utf-8")), "utf-8")
    os.replace(beside, path)


if __name__ == "__main__":
    rewrite(Path(sys.argv[1]))
