"""`edge-app policy` as its users run it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_app.cli import main
from edge_app.errors import EXIT_OK, EXIT_USAGE
from edge_app.governor import Policy, load_policy, presets
from edge_app.policy.keys import keys
from edge_app.policy.schema import json_schema

ZOO = Path(__file__).parent / "zoo"
PI = ZOO / "raspberry-pi-5.jsonl"


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Result]


@pytest.fixture
def policy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Runs `edge-app policy` in this process, with a home below ``tmp_path``."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["edge-app", "policy", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return Result(int(ended.value.code or 0), output.out, output.err)

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "120")
    return run


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "config" / "edge-app" / "policy.toml"
    path.parent.mkdir(parents=True)
    return path


# init -----------------------------------------------------------------------------------------


def test_init_writes_a_policy_that_check_accepts(policy: Command, tmp_path: Path) -> None:
    path = tmp_path / "greenhouse.toml"
    result = policy("init", path, "--preset", "longest")
    assert result.returncode == EXIT_OK and result.stdout == ""
    assert f"{path}: written, from longest" in result.stderr
    assert load_policy(path) == load_policy(None, "longest", ["name=greenhouse"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["greenhouse.toml"]
    assert policy("check", path, "--sysroot", ZOO / "laptop-two-batteries.jsonl").returncode == 0


def test_init_does_not_replace_a_file_unless_told_to(policy: Command, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("# my work\n")
    result = policy("init", path)
    assert result.returncode == EXIT_USAGE and path.read_text() == "# my work\n"
    assert "is there already; --force replaces it" in result.stderr
    assert policy("init", path, "--force", "--full").returncode == EXIT_OK
    assert "max_age_s = 5.0" in path.read_text()


def test_init_to_stdout_and_to_nowhere(policy: Command, tmp_path: Path) -> None:
    result = policy("init", "-", "--preset", "coolest")
    assert tomllib.loads(result.stdout)["name"] == "coolest" and "\n# Heat" in result.stdout
    result = policy("init", tmp_path / "no" / "such" / "policy.toml")
    assert result.returncode == EXIT_USAGE and "cannot be written: No such file" in result.stderr
    result = policy("init", "-", "--preset", "cool")
    assert result.returncode == EXIT_USAGE and 'did you mean "coolest"?' in result.stderr


# check ----------------------------------------------------------------------------------------


def test_check_lists_mistakes_of_all_files(policy: Command, tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{name}.toml" for name in "abc")
    first.write_text("[levels]\nmax_bits = 12\n")
    second.write_text("[thermal]\ncontrol_c = 70\n")
    third.write_text("[thermal\n")
    result = policy("check", first, second, third, "--sysroot", PI)
    assert result.returncode == EXIT_USAGE and result.stderr == ""
    assert result.stdout.split("\n") == [
        f"{first}:2:1: error: levels.max_bits: must be at most 8 (got 12); give 2 to 8 bits",
        "    max_bits = 12",
        f"{second}: ok",
        (
            f"{third}:1:9: error: thermal: not valid TOML: expected ']' at the end of a table "
            "declaration; a table's name stands in brackets on a line of its own: [thermal]"
        ),
        "    [thermal",
        "",
    ]


def test_check_warns_of_what_is_odd_on_the_device(policy: Command, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[thermal]\nzones = ['cpu*', 'tpu*']\n[battery]\ncapacity_wh = 20\n")
    result = policy("check", path, "--sysroot", PI)
    assert result.returncode == EXIT_OK
    first, _, second, *_ = result.stdout.split("\n")
    assert first.startswith(f'{path}:2:18: warning: thermal.zones.1: "tpu*" matches nothing')
    assert "name one of its zones: cpu-thermal" in first
    assert "battery.capacity_wh: " in second and second.startswith(f"{path}:4:1: warning")


def test_check_as_json_is_for_editors(policy: Command, tmp_path: Path) -> None:
    path, fine = tmp_path / "a.toml", tmp_path / "b.toml"
    path.write_text("[thermal]\nzones = ['tpu']\nfoo = 1\n")
    fine.write_text("[thermal]\nzones = ['tpu']\n")
    result = policy("check", "--json", path, fine, "--sysroot", PI)
    assert result.returncode == EXIT_USAGE
    mistake, odd = json.loads(result.stdout)
    assert mistake == {
        "file": str(path),
        "line": 3,
        "column": 1,
        "severity": "error",
        "key": "thermal.foo",
        "message": mistake["message"],
        "source": "foo = 1",
    }
    assert (odd["file"], odd["line"], odd["severity"]) == (str(fine), 2, "warning")
    fine.write_text("")
    assert json.loads(policy("check", "--json", fine, "--sysroot", PI).stdout) == []


def test_check_without_files_checks_all_layers(policy: Command, user_file: Path) -> None:
    assert policy("check", "--sysroot", PI).stdout == "the effective policy: ok\n"
    user_file.write_text("levels.max_bits = 12\n")
    result = policy("check", "--sysroot", PI)
    assert result.returncode == EXIT_USAGE and result.stdout.startswith(f"{user_file}:1:8: error")


def test_check_of_one_file_leaves_the_others_alone(
    policy: Command, user_file: Path, tmp_path: Path
) -> None:
    user_file.write_text("levels.max_bits = 12\n")
    path = tmp_path / "a.toml"
    path.write_text("levels.max_bits = 6\n")
    assert policy("check", path, "--sysroot", PI).stdout == f"{path}: ok\n"
    result = policy("check", path, "--sysroot", tmp_path / "none")
    assert result.returncode == EXIT_USAGE and "none" in result.stderr


# show and diff --------------------------------------------------------------------------------


def test_show_prints_the_effective_policy(
    policy: Command, user_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_file.write_text("[frame]\ntarget_fps = 12\n")
    monkeypatch.setenv("EDGE_APP_POLICY__THERMAL__CONTROL_C", "71.5")
    result = policy("show", "--origin", "--preset", "longest", "--set", "battery.until=18:00:00")
    assert result.returncode == EXIT_OK, result.stderr
    shown = dict(line.split("  # ") for line in result.stdout.split("\n") if "  # " in line)
    origins = {line.strip(): origin for line, origin in shown.items()}
    assert origins["target_fps = 12.0"] == f"user: {user_file}:2"
    assert origins["control_c = 71.5"] == "environment: EDGE_APP_POLICY__THERMAL__CONTROL_C"
    assert origins["until = 18:00:00"] == "--set"
    assert origins["start_bits = 2"].endswith("longest.toml:14")
    assert origins["min_fps = 2.5"] == "default"
    plain = policy("show", "--preset", "longest", "--set", "battery.until=18:00:00").stdout
    assert "#" not in plain and tomllib.loads(plain) == tomllib.loads(result.stdout)
    assert Policy.model_validate(tomllib.loads(plain)).frame.target_fps == 12


def test_show_of_a_broken_policy_lists_the_mistakes(policy: Command) -> None:
    result = policy("show", "--set", "thermal.control_c=500", "--set", "x=1")
    assert result.returncode == EXIT_USAGE and result.stdout == ""
    assert result.stderr.count("--set: error: ") == 2


def test_diff(policy: Command, user_file: Path, tmp_path: Path) -> None:
    assert policy("diff").stdout == "balanced and effective: equal\n"
    user_file.write_text("[frame]\ntarget_fps = 12\n")
    expected = "from balanced to effective:\n  frame.target_fps: 30.0 -> 12.0\n"
    assert policy("diff").stdout == expected
    path = tmp_path / "a.toml"
    path.write_text("thermal.control_c = 70\n")
    assert policy("diff", path).stdout == (
        f"from balanced to {path}:\n  thermal.control_c: 78.0 -> 70.0\n"
    )
    both = policy("diff", "longest", path).stdout
    assert both.startswith(f"from longest to {path}:\n  name: ") and "68.0 -> 70.0" in both
    assert policy("diff", "effective", "balanced").stdout.endswith("12.0 -> 30.0\n")
    missing = policy("diff", "longst")
    assert missing.returncode == EXIT_USAGE and "cannot be read" in missing.stderr


# schema and explain ---------------------------------------------------------------------------


def test_schema(policy: Command) -> None:
    assert json.loads(policy("schema").stdout) == json_schema()


def test_explain(policy: Command, user_file: Path) -> None:
    user_file.write_text("[thermal]\n\ncontrol_c = 70\n")
    text = policy("explain", "control_c").stdout
    assert text.startswith("thermal.control_c\n") and f"from         user: {user_file}:3\n" in text
    listed = policy("explain").stdout
    assert all(name in listed for name in keys())
    result = policy("explain", "controlc")
    assert result.returncode == EXIT_USAGE
    assert result.stderr == "edge-app: controlc: no such key; did you mean thermal.control_c?\n"


def test_explain_does_not_need_a_policy_that_is_in_order(policy: Command, user_file: Path) -> None:
    user_file.write_text("[thermal\n")
    result = policy("explain", "thermal.control_c")
    assert result.returncode == EXIT_OK
    assert "not known: there are mistakes, see `edge-app policy show`" in result.stdout


# simulate and help ----------------------------------------------------------------------------


def test_simulate_hands_its_options_on(policy: Command, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    options = ("--device", "pi5-passive", "--hours", 0.05, "--no-baselines", "--json", numbers)
    result = policy("simulate", *options, "--policy", "coolest", "--policy", "fastest")
    assert result.returncode == EXIT_OK, result.stderr
    assert len(json.loads(numbers.read_text())["runs"]) == 2
    result = policy("simulate", "--device", "toaster")
    assert result.returncode == EXIT_USAGE and "toaster" in result.stderr


def test_help_of_every_command(policy: Command) -> None:
    names = ("init", "check", "show", "diff", "schema", "explain", "simulate")
    shown = policy("--help").stdout
    for name in names:
        assert f"  {name} " in shown
        assert "Usage: edge-app policy" in policy(name, "--help").stdout
    assert "EDGE_APP_POLICY__THERMAL__CONTROL_C=75" in policy("show", "--help").stdout


def test_run_uses_the_same_layers(
    edge_app: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    settings = {
        "XDG_CONFIG_HOME": str(tmp_path),
        "EDGE_APP_POLICY__LEVELS__MAX_BITS": "9",
    }
    result = edge_app("run", "--max-frames", "1", "--set", "foo=1", env=settings)
    assert result.returncode == EXIT_USAGE
    assert "environment: error: levels.max_bits: must be at most 8 (got 9)" in result.stderr
    assert "--set: error: foo: unknown key" in result.stderr


def test_presets_are_named_in_the_help_of_run(
    edge_app: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    shown = " ".join(edge_app("run", "--help").stdout.split())
    assert all(name in shown for name in presets())
