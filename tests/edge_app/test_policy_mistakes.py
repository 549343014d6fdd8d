"""Every mistake is reported with its place, its key and what to do; all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_samples import INVALID

from edge_app.errors import EXIT_USAGE
from edge_app.governor import PolicyError, load_policy
from edge_app.policy import files as policy_file
from edge_app.policy.locator import Position
from edge_app.policy.problems import Problem


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


PRESET = (Path(policy_file.__file__).parents[1] / "assets/presets/balanced.toml").read_text()


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """The default policy after a slip of the hand: some of it is gone or something else."""
    text = PRESET
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        slip = draw(st.text("[]{}=\"'#.,:-+_ \n\t\r\\0123456789aetru°\x00\x85\u2028", max_size=6))
        text = text[:start] + slip + text[end:]
    return text


@settings(deadline=None, max_examples=150)
@given(text=damaged())
def test_after_a_slip_of_the_hand_each_mistake_has_a_place(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.toml"
    path.write_bytes(text.encode())
    try:
        load_policy(path)
    except PolicyError as error:
        rows = text.replace("\r\n", "\n").split("\n")
        for problem in error.problems:
            assert problem.place == str(path) and problem.position is not None
            row = rows[problem.position.line - 1]
            assert problem.source == row and 1 <= problem.position.column <= len(row) + 1
            what, semicolon, advice = problem.what.rpartition("; ")
            assert what and semicolon and advice


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
