"""What to do about a file that is not TOML. ``tomllib`` says where it gave up; the usual
mistakes are known, and the key is read from the line."""

from __future__ import annotations

import re
import tomllib

from edge_app.policy.locator import Position
from edge_app.policy.problems import Problem

PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
HEADER = re.compile(r"\s*\[{1,2}\s*([^\]\n]*?)\s*(?:\]{1,2}\s*(?:#.*)?)?$")
STATEMENT = re.compile(r"""\s*([\w"'-]+(?:\s*\.\s*[\w"'-]+)*)\s*([=:]?)\s*(.*)""")
UNTIL_COMMENT = re.compile(r"""(?:"[^"]*"|'[^']*'|[^#"'])+""")
TIME = re.compile(r"(\d\d?):(\d\d)")
NUMBER_AND_MORE = re.compile(r"[-+]?\d+(?:\.\d+)?\s*([^\d\s.,:_+-].*)")
WORDS = {
    "yes": "true",
    "on": "true",
    "true": "true",
    "no": "false",
    "off": "false",
    "false": "false",
}
UNCLOSED = ("Unclosed", "Unterminated")
NOTHING = ("null", "nil", "none", "~", "")


def syntax_problem(place: str, lines: tuple[str, ...], error: tomllib.TOMLDecodeError) -> Problem:
    """The problem, at the statement that causes it."""
    what = PLACE.sub("", str(error))
    match = PLACE.search(str(error))
    last = max((index for index, line in enumerate(lines, 1) if line.strip()), default=1)
    line = int(match[1]) if match and match[1] else last
    column = int(match[2]) if match and match[2] else len(lines[last - 1]) + 1
    at_its_start = not lines[line - 1][: column - 1].partition("#")[0].strip()
    if what.startswith(UNCLOSED) or (what.startswith("Invalid value") and at_its_start):
        # A value where a line begins: the array above has not ended.
        line, column = _opening(lines, line, column)
    if what.startswith("Cannot"):
        column = len(lines[line - 1]) - len(lines[line - 1].lstrip()) + 1
    source = lines[line - 1]
    return Problem(
        place,
        f"not valid TOML: {what[0].lower()}{what[1:]}; {_advice(what, source)}",
        _key(lines, line),
        Position(line, column),
        source,
    )


def _opening(lines: tuple[str, ...], line: int, column: int) -> tuple[int, int]:
    """The newest statement that opens an array, a table or a text: it is what is not closed. The
    place that is given if there is none."""
    for number in range(line, 0, -1):
        match = STATEMENT.match(lines[number - 1])
        if match and match[2] == "=" and lines[number - 1][match.start(3) :][:1] in tuple("[{\"'"):
            return number, match.start(3) + 1
    return line, column


def _key(lines: tuple[str, ...], line: int) -> str:
    """The dotted key of a line, as far as it can be told from broken text."""
    header = HEADER.fullmatch(lines[line - 1])
    if header:
        return header[1]
    statement = STATEMENT.match(lines[line - 1])
    if statement is None:
        return ""
    for above in reversed(lines[: line - 1]):
        header = HEADER.fullmatch(above)
        if header and above.rstrip().partition("#")[0].rstrip().endswith("]"):
            return f"{header[1]}.{''.join(statement[1].split())}"
    return "".join(statement[1].split())


def _advice(what: str, source: str) -> str:
    if what.startswith("Cannot declare"):
        return "the table is there already: join the two"
    if what.startswith("Cannot"):
        return "the key is there already: keep one of the two"
    if HEADER.fullmatch(source):
        return "a table's name stands in brackets on a line of its own: [thermal]"
    statement = STATEMENT.match(source)
    if statement is None or statement[2] == "":
        return "write key = value, one on a line"
    uncommented = UNTIL_COMMENT.match(statement[3])
    value = (uncommented[0] if uncommented else statement[3]).strip()
    if statement[2] == ":":
        return f"write {statement[1]} = {value or '...'}"
    if value[:1] in tuple("[{\"'"):
        return _ending(what, value, statement[3][:3])
    return _plain_value(statement[1], value)


def _ending(what: str, value: str, opening: str) -> str:
    """About an array, an inline table or a text that is not closed, or ill-formed inside."""
    if opening in ('"""', "'''"):
        return f"end the text with {opening}"
    if what.startswith("Unclosed inline"):
        return "an inline table stands on one line, with commas between its keys and } at its end"
    if value[0] in "[{":
        end = "]" if value[0] == "[" else "}"
        return f"put commas between the elements and {end} at the end"
    if "\\" in value:
        return "write \\\\ for a backslash, or put the text into single quotes"
    return f"end the text with {value[0]} on the same line"


def _plain_value(key: str, value: str) -> str:
    """About a number, a time, a word: what was probably meant."""
    if "=" in value:
        return "write one key = value on a line"
    clock = TIME.fullmatch(value)
    if re.fullmatch(r"\d+:\d+:\d+.*", value) or (clock and int(clock[1]) > 23):
        return "a time of day is 00:00:00 to 23:59:59"
    if clock:
        return f"a time of day has seconds: write {int(clock[1]):02}:{clock[2]}:00"
    if value.lower() in WORDS:
        return f"write {WORDS[value.lower()]}"
    if value.lower() in NOTHING:
        return "give a value, or remove the line for the default"
    if re.fullmatch(r"[-+]?\d+,\d+", value):
        return f"write a decimal point: {value.replace(',', '.')}"
    if re.fullmatch(r"[-+]?0\d+(\.\d*)?", value):
        return "write the number without leading zeros"
    if re.fullmatch(r"[-+]?\d+\.|[-+]?\.\d+", value):
        return "a decimal point stands between digits"
    if NUMBER_AND_MORE.fullmatch(value):
        return "write the number alone; `edge-app policy explain KEY` tells its unit"
    return f'put text into quotes: {key} = "{value}"'
