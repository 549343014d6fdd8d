"""Every mistake is reported with its place, its key and what to do; all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_app.errors import EXIT_USAGE
from edge_app.governor import PolicyError, load_policy
from edge_app.governor.locator import Position
from edge_app.governor.policy_problems import Problem


def mistakes(text: str, tmp_path: Path, overrides: tuple[str, ...] = ()) -> tuple[Problem, ...]:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(PolicyError) as caught:
        load_policy(path, overrides=overrides)
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.message == "\n".join(str(problem) for problem in caught.value.problems)
    return caught.value.problems


def lines(problems: tuple[Problem, ...], tmp_path: Path) -> list[str]:
    return [str(problem).replace(f"{tmp_path}/", "") for problem in problems]


# text; place; key; what is wrong; what to do
INVALID = [
    # values
    ("[levels]\nmax_bits = 12", "2:1", "levels.max_bits", "at most 8 (got 12)", "give 2 to 8 bits"),
    ("[levels]\nmin_bits = 1", "2:1", "levels.min_bits", "at least 2 (got 1)", "give 2 to 8 bits"),
    ("[levels]\nmin_bits = 2.0", "2:1", "levels.min_bits", "a whole number (got 2.0)", "write 2"),
    ("[levels]\nmin_bits = 2.5", "2:1", "levels.min_bits", "(got 2.5)", "give a whole number, 2"),
    ('[levels]\nmin_bits = "4"', "2:1", "levels.min_bits", '(got "4")', "without quotes"),
    ("[frame]\nmin_fps = 0", "2:1", "frame.min_fps", "more than 0 (got 0)", "frames/s"),
    ("frame.min_fps = true", "1:7", "frame.min_fps", "a number (got true)", "more than 0, at most"),
    ("[thermal]\non_c = nan", "2:1", "thermal.on_c", "finite number (got nan)", "0 to 125 °C"),
    ("[thermal]\non_c = -inf", "2:1", "thermal.on_c", "(got -inf)", "give 0 to 125 °C"),
    ('[thermal]\non_c = "hot"', "2:1", "thermal.on_c", '(got "hot")', "give a number, 0 to 125 °C"),
    ("[thermal]\nzones = []", "2:1", "thermal.zones", "not be empty (got [])", "leave the key out"),
    ('[thermal]\nzones = "cpu"', "2:1", "thermal.zones", '(got "cpu")', '[ "cpu" ]'),
    ("[thermal]\nzones = ['a', 1]", "2:15", "thermal.zones.1", "(got 1)", "into quotes"),
    ("[thermal]\nrequired = 'yes'", "2:1", "thermal.required", '(got "yes")', "true or false"),
    ("thermal = 80", "1:1", "thermal", "a table (got 80)", "put its keys below"),
    ("[[thermal]]", "1:1", "thermal", "a table (got [{}])", "put its keys below"),
    ('name = ""', "1:1", "name", 'not be empty (got "")', "fill it"),
    ("name = 3", "1:1", "name", "text in quotes (got 3)", "into quotes"),
    ("schema = 2", "1:1", "schema", "reads schema 1 (got 2)", "update edge-app"),
    ("[battery]\non_ac = 'ignor'", "2:1", "battery.on_ac", '(got "ignor")', 'mean "ignore"?'),
    ("[battery]\non_ac = 7", "2:1", "battery.on_ac", "(got 7)", 'write "ignore" or "apply"'),
    ("[battery]\nuntil = '18:00'", "2:1", "battery.until", '(got "18:00")', "18:00:00 without"),
    ("[battery]\nuntil = '9:05'", "2:1", "battery.until", "time of day", "write 09:05:00 without"),
    ("[battery]\nuntil = 18", "2:1", "battery.until", "(got 18)", "write 18:00:00 without"),
    ("[battery]\nuntil = 2026-01-02", "2:1", "battery.until", "2026-01-02", "18:00:00 without"),
    ("battery.until = 2026-01-02T18:00:00", "1:9", "battery.until", "T18:00:00", "18:00:00 with"),
    (
        "[battery]\ntiers = { below = 3 }",
        "2:1",
        "battery.tiers",
        "array of tables",
        "brackets: [ {",
    ),
    ("[battery]\ntiers = [3]", "2:10", "battery.tiers.0", "a table (got 3)", "{ below = 20"),
    ("[[battery.tiers]]\nbelow = 9", "1:1", "battery.tiers.0.max_bits", "is missing", "add it"),
    (
        "[battery]\ntiers = [ { below = 40, max_bits = 6 },\n  { below = 20, max_bits = 9 } ]",
        "3:17",
        "battery.tiers.1.max_bits",
        "at most 8 (got 9)",
        "give 2 to 8 bits",
    ),
    # keys
    ("[thermal]\ncontroll_c = 3", "2:1", "thermal.controll_c", "unknown key", 'mean "control_c"?'),
    ("[thermal]\ntarget_fps = 3", "2:1", "thermal.target_fps", "unknown", '"frame.target_fps"?'),
    ("[levels]\nmax = 4", "2:1", "levels.max", "unknown key", 'did you mean "max_bits"?'),
    ("[energy]\nfoo = 4", "2:1", "energy.foo", "unknown key", "known here: idle_w, active_w"),
    ("[termal]\non_c = 4", "1:1", "termal", "unknown key", 'did you mean "thermal"?'),
    ('["a.b"]', "1:1", '"a.b"', "unknown key", "known here: schema, name"),
    ("policy_schema = 1", "1:1", "policy_schema", "unknown key", 'did you mean "schema"?'),
    # contradictions
    ("[levels]\nmin_bits = 8\nmax_bits = 4", "3:1", "levels.max_bits", "min_bits = 8", "give 8 or"),
    ("[thermal]\non_c = 90", "2:1", "thermal.on_c", "2 or more below", "give 76 or less"),
    ("[thermal]\npause_c = 80", "2:1", "thermal.pause_c", "critical_c = 88", "give 88 or more"),
    ("[frame]\nmin_fps = 60", "2:1", "frame.min_fps", "not be above", "give 30 or less"),
    (
        "[battery]\ntiers = [{below = 20, max_bits = 4}, {below = 40, max_bits = 4}]",
        "2:39",
        "battery.tiers.1.below",
        "below that of the tier before, 20 (got 40)",
        "from high to low",
    ),
    (
        "[battery]\ntiers = [{below = 20, max_bits = 4}, {below = 10, max_bits = 6}]",
        "2:51",
        "battery.tiers.1.max_bits",
        "not be above that of the tier before, 4 (got 6)",
        "less charge cannot allow more",
    ),
    # what is not TOML
    ("[thermal]\non_c = 60%", "2:10", "thermal.on_c", "not valid TOML", "the number alone"),
    ("[thermal]\non_c = 60 °C", "2:11", "thermal.on_c", "not valid TOML", "the number alone"),
    ("[battery]\nuntil = 18:00", "2:11", "battery.until", "not valid TOML", "write 18:00:00"),
    ("[battery]\nuntil = 25:00:00", "2:11", "battery.until", "not valid", "00:00:00 to 23:59:59"),
    ("[load]\nyield_to_others = Yes", "2:19", "load.yield_to_others", "invalid", "write true"),
    ("[load]\nyield_to_others = off # no", "2:19", "load.yield_to_others", "inv", "write false"),
    ("name = mine", "1:8", "name", "invalid value", 'name = "mine"'),
    ("name: mine", "1:5", "name", "expected '='", "write name = mine"),
    ("[battery]\nuntil = null", "2:9", "battery.until", "invalid", "remove the line"),
    ("[battery]\nuntil =", "2:8", "battery.until", "invalid", "remove the line"),
    ("[frame]\nmin_fps = 2,5", "2:12", "frame.min_fps", "not valid TOML", "decimal point: 2.5"),
    ("[frame]\nmin_fps = .5", "2:11", "frame.min_fps", "not valid TOML", "between digits"),
    ("[frame]\nmin_fps = 05", "2:12", "frame.min_fps", "not valid TOML", "leading zeros"),
    ("[frame]\nmin_fps = 2\nmin_fps = 3\n", "3:1", "frame.min_fps", "overwrite", "one of the two"),
    ("[frame]\n[load]\n[frame]\n", "3:1", "frame", "twice", "join the two"),
    ("[frame\nmin_fps = 2", "1:7", "frame", "expected ']'", "in brackets"),
    ('[load]\nx = "abc\ny = 2', "2:9", "load.x", "not valid TOML", "end the text with"),
    ("[thermal]\nzones = ['a',\n 'b'\n", "2:9", "thermal.zones", "unclosed array", "] at the end"),
    ("[battery]\ntiers = [{ below = 3,\n x = 1 }]", "2:22", "battery.tiers", "not valid", "comma"),
    ("min_fps 30", "1:9", "min_fps", "expected '='", "write key = value"),
    ("= 3", "1:1", "", "invalid statement", "write key = value"),
    ("[load]\nstep_s = 1 other_load = 2", "2:12", "load.step_s", "expected newline", "on a line"),
    ('name = "C:\\pi"', "1:13", "name", "not valid TOML", "single quotes"),
]


@pytest.mark.parametrize(
    ("text", "place", "key", "wrong", "advice"), INVALID, ids=[row[0] for row in INVALID]
)
def test_every_mistake_has_its_place_its_key_and_a_fix(
    text: str, place: str, key: str, wrong: str, advice: str, tmp_path: Path
) -> None:
    (problem,) = mistakes(text, tmp_path)
    assert problem.place == str(tmp_path / "policy.toml") and problem.position is not None
    assert f"{problem.position.line}:{problem.position.column}" == place
    assert problem.key == key and problem.source == text.split("\n")[problem.position.line - 1]
    what, _, fix = problem.what.partition(";") if ";" in problem.what else (problem.what, "", "")
    assert wrong in what and advice in (fix or what)


def test_all_mistakes_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """\
[levels]
max_bits = 12           # too many
[thermal]
controll_c = 3
[battery]
tiers = [ { below = 40, max_bits = 6 },
          { below = 20, max_bits = 9 } ]
[stability]
guard_bits = nan
"""
    found = mistakes(text, tmp_path, ("thermal.on_c=90", "levels.max=4", "x"))
    assert lines(found, tmp_path) == [
        (
            "policy.toml:2:1: error: levels.max_bits: must be at most 8 (got 12); give 2 to 8 bits\n"
            "    max_bits = 12           # too many"
        ),
        (
            'policy.toml:4:1: error: thermal.controll_c: unknown key; did you mean "control_c"?\n'
            "    controll_c = 3"
        ),
        (
            "policy.toml:7:25: error: battery.tiers.1.max_bits: must be at most 8 (got 9); "
            "give 2 to 8 bits\n    { below = 20, max_bits = 9 } ]"
        ),
        (
            "policy.toml:9:1: error: stability.guard_bits: must be a finite number (got nan); "
            "give 0 to 4 bits\n    guard_bits = nan"
        ),
        "--set: error: must be key=value, for example thermal.control_c=75\n    x",
        '--set: error: levels.max: unknown key; did you mean "max_bits"?\n    levels.max=4',
        (
            "--set: error: thermal.on_c: must be 2 or more below thermal.control_c = 78 (got 90); "
            "give 76 or less, or raise thermal.control_c\n    thermal.on_c=90"
        ),
    ]


def test_a_file_that_is_no_toml_does_not_hide_the_other_layers(tmp_path: Path) -> None:
    found = mistakes("[thermal]\non_c = 60%\n", tmp_path, ("levels.max=4",))
    assert [(problem.place.rpartition("/")[2], problem.key) for problem in found] == [
        ("policy.toml", "thermal.on_c"),
        ("--set", "levels.max"),
    ]


def test_files_that_are_no_text_or_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b"schema = 1\nname = '\xe4'\n")
    for bad, expected in (
        (path, r"latin.toml:2:9: error: this is not UTF-8 text; save the file as UTF-8"),
        (tmp_path / "none.toml", "none.toml: error: the policy cannot be read: No such file"),
        (tmp_path, "cannot be read: Is a directory; check the path"),
    ):
        with pytest.raises(PolicyError, match=expected):
            load_policy(bad)


@pytest.mark.parametrize("text", ["x = " + "1" * 5000, "x = " + "[" * 2000 + "]" * 2000])
def test_files_that_python_refuses(text: str, tmp_path: Path) -> None:
    (problem,) = mistakes(text, tmp_path)
    assert problem.what.startswith("not a policy: ") and problem.what.endswith("no policy needs")


def test_windows_text_is_a_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(b"\xef\xbb\xbf[thermal]\r\ncontrol_c = 70\r\n")
    assert load_policy(path).thermal.control_c == 70
    path.write_bytes(b"\xef\xbb\xbf[thermal]\r\n\r\ncontrol_c = 700\r\n")
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    (problem,) = caught.value.problems
    assert problem.position == Position(3, 1) and problem.source == "control_c = 700"


def test_unknown_preset() -> None:
    with pytest.raises(PolicyError, match='no such preset; did you mean "longest"'):
        load_policy(None, "longst")
    with pytest.raises(PolicyError, match="there are: balanced, coolest, fastest, longest"):
        load_policy(None, "zzz")


@pytest.mark.parametrize("override", ["thermal.on_c", "=3", "thermal..on_c=3"])
def test_override_that_is_none(override: str) -> None:
    with pytest.raises(PolicyError, match="must be key=value") as caught:
        load_policy(None, overrides=[override])
    assert caught.value.problems[0].source == override


def test_long_values_and_lines_are_shortened(tmp_path: Path) -> None:
    (problem,) = mistakes(f"[levels]\nmax_bits = '{'x' * 500}'\n", tmp_path)
    assert len(problem.what) < 120 and len(str(problem).split("\n")[1]) < 110


def test_problems_as_json(tmp_path: Path) -> None:
    (problem,) = mistakes("[levels]\nmax_bits = 12\n", tmp_path)
    assert problem.as_json() == {
        "file": str(tmp_path / "policy.toml"),
        "line": 2,
        "column": 1,
        "severity": "error",
        "key": "levels.max_bits",
        "message": "must be at most 8 (got 12); give 2 to 8 bits",
        "source": "max_bits = 12",
    }
