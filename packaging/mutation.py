"""Mutation testing of the governor: how many deliberate mistakes in its code do its tests notice?

    .venv/bin/python packaging/mutation.py [MODULE ...] [--jobs N] [--keep]

mutmut makes thousands of copies of the control code with one small mistake each (a comparison
turned round, a constant off by one, an argument dropped) and runs the tests that reach the changed
function against every one. A mistake that no test fails on has survived. Prints a table by module
and the survivors' names; exit code 1 if fewer than 90 % were killed.

Everything happens in build/mutation: a copy of the code, and an environment with mutmut that
borrows the other packages from the one that runs this. `mutmut show NAME` in build/mutation/tree
prints a survivor's difference. With ``--keep`` only functions that changed since the last run are
tried again.
"""

from __future__ import annotations

import argparse
import collections
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "mutation"
TREE = PLACE / "tree"
PLUGINS = PLACE / "plugins"
MUTMUT = "mutmut==3.8.1"
BAR = 0.90

CONTROL = (
    "arbiter",
    "backdown",
    "battery",
    "budget",
    "caps",
    "controller",
    "demand",
    "drain",
    "energy",
    "frames",
    "gauge",
    "hidden",
    "ladder",
    "load",
    "power_fit",
    "slowdown",
    "state",
    "tracking",
    "until",
    "wallclock",
)
"""The modules of edge_app.governor that decide."""

TESTS = (
    "arbiter",
    "battery",
    "budget",
    "caps",
    "caps_edges",
    "demand",
    "drain",
    "energy",
    "frames",
    "gauge",
    "governor",
    "governor_caps",
    "governor_state",
    "hidden",
    "slowdown",
    "tracking",
    "until",
)
"""The files of tests/edge_app that test them step by step. The invariants and the fault catalogue
would notice some more, and each survivor would take a minute instead of seconds."""

NOTICED = ("killed", "timeout", "segfault", "suspicious", "caught by type check")

SETTINGS = """\
[mutmut]
source_paths =
    edge_app
only_mutate =
{modules}
pytest_add_cli_args =
    -p
    no:cacheprovider
    -p
    quickest_first
    -m
    not slow
    --hypothesis-profile=mutation
pytest_add_cli_args_test_selection =
{tests}
use_git_change_detection = false
timeout_multiplier = 3
"""

QUICKEST_FIRST = """\
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: getattr(item.obj, "is_hypothesis_test", False))
"""
"""A plugin: plain tests find most mutants, and a property takes a hundred times as long."""


def environment() -> Path:
    """The Python of an environment that has mutmut and sees what this one has installed.

    Not as a plain parent: an editable installation hooks imports, and `edge_app` would come from
    the working tree instead of from the mutants.
    """
    place = PLACE / "venv"
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, MUTMUT], check=True)
        borrowed = next(place.glob("lib/python*/site-packages")) / "borrowed.pth"
        borrowed.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def copy(modules: list[str], keep: bool) -> None:
    """The code, its tests, and the settings."""
    if not keep:
        shutil.rmtree(TREE, ignore_errors=True)
    for part in ("edge_app", "tests/edge_app"):
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / part, TREE / part, dirs_exist_ok=True, ignore=ignored)
    for part in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy2(ROOT / part, TREE / part)
    listed = "\n".join(f"    edge_app/governor/{module}.py" for module in modules)
    there = [f"tests/edge_app/test_{name}.py" for name in TESTS]
    text = SETTINGS.format(modules=listed, tests="\n".join(f"    {test}" for test in there))
    PLUGINS.mkdir(exist_ok=True)
    (PLUGINS / "quickest_first.py").write_text(QUICKEST_FIRST, encoding="utf-8")
    (TREE / "setup.cfg").write_text(text, encoding="utf-8")


def results(mutmut: list[str]) -> dict[str, str]:
    """What became of every mutant, by name."""
    shown = subprocess.run(
        [*mutmut, "results", "--all", "true"], cwd=TREE, check=True, capture_output=True, text=True
    ).stdout
    pairs = (line.rpartition(": ") for line in shown.splitlines() if ": " in line)
    return {name.strip(): status for name, _, status in pairs}


def report(found: dict[str, str]) -> float:
    """Print the table and the survivors; the share that was noticed."""
    counts: dict[str, collections.Counter[str]] = {}
    for name, status in found.items():
        module = name.split(".")[2]
        noticed = "noticed" if status in NOTICED else "survived"
        counts.setdefault(module, collections.Counter())[noticed] += 1
    for name, status in found.items():
        if status not in NOTICED:
            print(f"  {status}: {name}")
    print(f"{'module':12} {'mutants':>8} {'killed':>8}  share")
    total: collections.Counter[str] = collections.Counter()
    for module, count in sorted(counts.items()):
        total += count
        print(f"{module:12} {count.total():8} {count['noticed']:8}  {_share(count):6.1%}")
    print(f"{'all':12} {total.total():8} {total['noticed']:8}  {_share(total):6.1%}")
    return _share(total)


def _share(count: collections.Counter[str]) -> float:
    return count["noticed"] / max(1, count.total())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("modules", nargs="*", help="of edge_app.governor; all that decide if none")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", action="store_true", help="go on from the last run")
    given = parser.parse_args()
    have = {path.stem for path in (ROOT / "edge_app" / "governor").glob("*.py")}
    modules = given.modules or [module for module in CONTROL if module in have]
    if unknown := sorted(set(modules) - have):
        parser.error(f"no such module in edge_app/governor: {', '.join(unknown)}")
    mutmut = [str(environment()), "-m", "mutmut"]
    copy(modules, given.keep)
    log = PLACE / "mutmut.log"
    print(f"Trying every mutant (a quarter of an hour); progress in {log}", flush=True)
    with log.open("w", encoding="utf-8") as output:
        ran = subprocess.run(
            [*mutmut, "run", "--max-children", str(given.jobs)],
            cwd=TREE,
            env=os.environ | {"PYTHONPATH": str(PLUGINS)},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    found = results(mutmut)
    if ran.returncode != 0 or not found:
        tail = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")[-2000:]
        print(f"{tail}\nmutmut could not run (exit code {ran.returncode}); see {log}")
        return 2
    share = report(found)
    return 0 if share >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
