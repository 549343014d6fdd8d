"""Mutation testing of the governor: how many deliberate mistakes in its code do its tests notice?

    .venv/bin/python packaging/mutation.py [MODULE ...] [--sample SHARE] [--plain] [--jobs N]

mutmut makes thousands of copies of the control code with one small mistake each (a comparison
turned round, a constant off by one, an argument dropped) and runs the tests that reach the changed
function against every one. A mistake that no test fails on has survived. Prints a table by module
and the survivors' names; exit code 1 if fewer than 90 % were killed.

Everything happens in build/mutation: a copy of the code, and an environment with mutmut that
borrows the other packages from the one that runs this. `../venv/bin/mutmut show NAME` in
build/mutation/tree prints a survivor's difference.

All of it takes hours on two cores. ``--sample 0.1`` tries a tenth, always the same one;
``--plain`` leaves the property tests out, which are slow and find few mutants that plain tests do
not: the share that it prints is a little too low.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
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
LOG = PLACE / "mutmut.log"
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
    mutation_order
    -m
    not slow
    --hypothesis-profile=mutation
pytest_add_cli_args_test_selection =
{tests}
use_git_change_detection = false
timeout_multiplier = 3
"""

ORDER = """\
import os

def is_property(item):
    return getattr(item.obj, "is_hypothesis_test", False)

def pytest_collection_modifyitems(items):
    if os.environ["MUTATION_PLAIN"] == "1":
        items[:] = [item for item in items if not is_property(item)]
    items.sort(key=is_property)
"""
"""A pytest plugin: plain tests first, because a property takes a hundred times as long."""


def environment() -> Path:
    """The Python of an environment that has mutmut and sees what this one has installed.

    Not as a plain parent: an editable installation hooks imports, and `edge_app` would come from
    the working tree instead of from the mutants.
    """
    place = PLACE / "venv"
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, MUTMUT], check=True)
        borrowed = next(place.glob("lib/python*/site-packages")) / "borrowed.pth"
        borrowed.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def copy(modules: list[str]) -> None:
    """The code, its tests, and the settings."""
    shutil.rmtree(TREE, ignore_errors=True)
    for part in ("edge_app", "tests/edge_app"):
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / part, TREE / part, ignore=ignored)
    for part in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy2(ROOT / part, TREE / part)
    listed = "\n".join(f"    edge_app/governor/{module}.py" for module in modules)
    there = [f"tests/edge_app/test_{name}.py" for name in TESTS]
    text = SETTINGS.format(modules=listed, tests="\n".join(f"    {test}" for test in there))
    PLUGINS.mkdir(exist_ok=True)
    (PLUGINS / "mutation_order.py").write_text(ORDER, encoding="utf-8")
    (TREE / "setup.cfg").write_text(text, encoding="utf-8")


class Mutmut:
    """The program, in the copy. ``plain``: without property tests."""

    def __init__(self, jobs: int, plain: bool) -> None:
        self._command = [str(environment()), "-m", "mutmut"]
        self._jobs = str(jobs)
        added = {"PYTHONPATH": str(PLUGINS), "MUTATION_PLAIN": str(int(plain))}
        self._environment = os.environ | added

    def run(self, names: list[str]) -> bool:
        """Try the mutants of these names, all if there are none. False if it could not run."""
        with LOG.open("a", encoding="utf-8") as output:
            command = [*self._command, "run", "--max-children", self._jobs, *names]
            ran = subprocess.run(
                command,
                cwd=TREE,
                env=self._environment,
                check=False,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return ran.returncode == 0

    def results(self) -> dict[str, str]:
        """What became of every mutant, by name."""
        command = [*self._command, "results", "--all", "true"]
        shown = subprocess.run(command, cwd=TREE, check=True, capture_output=True, text=True)
        pairs = (line.rpartition(": ") for line in shown.stdout.splitlines() if ": " in line)
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
    parser.add_argument("--sample", type=float, default=1.0, help="share of the mutants to try")
    parser.add_argument("--plain", action="store_true", help="without property tests")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    have = {path.stem for path in (ROOT / "edge_app" / "governor").glob("*.py")}
    modules = given.modules or list(CONTROL)
    if unknown := sorted(set(modules) - have):
        parser.error(f"no such module in edge_app/governor: {', '.join(unknown)}")
    PLACE.mkdir(parents=True, exist_ok=True)
    LOG.unlink(missing_ok=True)
    mutmut = Mutmut(given.jobs, given.plain)
    copy(modules)
    print(f"Trying the mutants; progress in {LOG}", flush=True)
    names: list[str] = []
    ran = True
    if given.sample < 1.0:
        # One is tried to have all of them made.
        ran = mutmut.run([f"edge_app.governor.{modules[0]}.*__mutmut_1"])
        made = sorted(mutmut.results())
        names = random.Random(1).sample(made, max(1, int(len(made) * given.sample)))
    ran = ran and mutmut.run(names)
    found = mutmut.results() if ran else {}
    if not found:
        tail = LOG.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")[-2000:]
        print(f"{tail}\nmutmut could not run; see {LOG}")
        return 2
    tried = {name: found[name] for name in names or found}
    return 0 if report(tried) >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
