"""Imports go one way: the device needs no training framework, and training no device."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"torch", "torchvision", "executorch", "sklearn"}
FORBIDDEN = {
    "edge_app": FRAMEWORKS | {"train", "export"},
    "native_ops": FRAMEWORKS | {"train", "export", "edge_app"},
    "train": {"export", "edge_app", "native_ops", "executorch"},
    "export": {"edge_app"},
}


def imported(source: str) -> set[str]:
    """Top-level packages that a module imports anywhere in it, also inside functions and through
    ``importlib.import_module("name")`` and ``__import__("name")``."""
    packages: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            packages.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            name = node.args[0]
            if called in ("import_module", "__import__") and isinstance(name, ast.Constant):
                packages.add(str(name.value).split(".")[0])
    return packages


def test_the_walk_finds_every_way_to_import() -> None:
    source = """
import a.b
from c.d import e
from . import f
def g():
    import h
    importlib.import_module("i.j")
    __import__("k")
if TYPE_CHECKING:
    from l import m
"""
    assert imported(source) == {"a", "c", "h", "i", "k", "l"}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_no_file_of_a_room_imports_what_it_must_not(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    found = {
        str(path.relative_to(ROOT)): sorted(imported(path.read_text()) & FORBIDDEN[room])
        for path in files
    }
    assert {path: names for path, names in found.items() if names} == {}


def loaded_after(code: str) -> set[str]:
    """Top-level modules that a new process has loaded after running ``code``."""
    report = "\nimport sys; print('\\n'.join({name.split('.')[0] for name in sys.modules}))"
    result = subprocess.run(
        [sys.executable, "-c", code + report],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_a_whole_run_loads_no_framework() -> None:
    # In one process, so that what is loaded at its end can be seen.
    code = """
import edge_app.cli, native_ops, sys
sys.argv = ["edge-app", "run", "--max-frames", "3"]
try:
    edge_app.cli.main()
except SystemExit as end:
    assert not end.code, end.code
"""
    loaded = loaded_after(code)
    assert {"edge_app", "native_ops", "numpy"} <= loaded
    assert not loaded & (FRAMEWORKS | {"train", "export"})
    # The test stream does without what only cameras, files and pictures need.
    assert not loaded & {"cv2", "matplotlib"}


def test_the_command_line_by_itself_loads_nothing_heavy() -> None:
    loaded = loaded_after("import edge_app.cli")
    assert not loaded & (FRAMEWORKS | {"numpy", "cv2", "pydantic", "rich", "native_ops", "psutil"})


def test_training_loads_neither_export_nor_the_device() -> None:
    loaded = loaded_after("import train, train.engine, train.report")
    assert "torch" in loaded
    assert not loaded & FORBIDDEN["train"]
