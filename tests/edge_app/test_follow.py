"""A running program follows its model to another version and back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from test_store import Publisher, publisher, pytestmark  # noqa: F401
from waiting import wait_for

from edge_app.store import Store, default_store
from edge_app.store.bundle import MODEL
from edge_app.why import ask, running


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publisher: Publisher) -> Store:  # noqa: F811
    """The store that a run uses by default, with two versions of one model in it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    store = Store(default_store())
    (store.root / "keys.d").mkdir(parents=True)
    shutil.copy(publisher.public, store.root / "keys.d")
    for version in (1, 2):
        store.install(publisher.bundle(version, name="mine"))
    store.use("mine", 1)
    return store


def events(pid: int) -> list[str]:
    return [entry["event"] for entry in ask(pid)["history"]] if pid in running() else []


def test_a_run_switches_between_two_frames(
    store: Store, start_edge_app: Any, tmp_path: Path
) -> None:
    records = tmp_path / "run.jsonl"
    process = start_edge_app("run", "--model", "mine", "--jsonl", records)
    wait_for(lambda: records.exists() and records.stat().st_size > 5000)
    assert ask(process.pid)["model"] == "mine", "and not the name of a file in the store"
    store.use("mine", 2)
    wait_for(lambda: "model_switched" in events(process.pid))
    at = len(records.read_text().splitlines())
    wait_for(lambda: len(records.read_text().splitlines()) > at + 20)
    # Damaged on disk: what runs goes on.
    broken = store.install(store.current("mine").parent)[0]  # type: ignore[union-attr]
    store.rollback("mine")
    wait_for(lambda: events(process.pid).count("model_switched") == 2)
    broken.path.chmod(0o644)
    broken.path.write_bytes(b"damaged")
    (store.root / "names/mine/current").unlink()
    (store.root / "names/mine/current").symlink_to(f"../../objects/{broken.object}")
    wait_for(lambda: "model_refused" in events(process.pid))
    at = len(records.read_text().splitlines())
    wait_for(lambda: len(records.read_text().splitlines()) > at + 20)
    process.terminate()
    assert process.wait(timeout=60) == 0


def test_a_version_that_does_not_start_is_taken_back(store: Store, edge_app: Any) -> None:
    store.use("mine", 2)
    for _ in range(3):
        assert edge_app("run", "--model", "mine", "--max-frames", 1).returncode == 0
    result = edge_app("run", "--model", "mine", "--max-frames", 1)
    assert result.returncode == 0
    assert "version 2 was started 3 times" in result.stderr and "version 1 is" in result.stderr
    roles = {entry.version: entry.role for entry in store.entries()}
    assert roles == {2: "previous", 1: "current"}


def test_files_without_a_signature_say_so(store: Store, edge_app: Any, tmp_path: Path) -> None:
    current = store.current("mine")
    assert current is not None and current.name == MODEL
    shutil.copy(current, tmp_path / "copy.pte")
    unsigned = edge_app("run", "--model", tmp_path / "copy.pte", "--max-frames", 1)
    assert unsigned.returncode == 0 and "is not signed" in unsigned.stderr
    for name in ("mine", "digits"):
        signed = edge_app("run", "--model", name, "--max-frames", 1)
        assert signed.returncode == 0 and "is not signed" not in signed.stderr
