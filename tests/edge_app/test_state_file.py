"""The governor's memory on disk: whole at every moment, and never a reason to fail."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from edge_app.state_file import StateFile, default_state_path


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    store = StateFile(tmp_path / "deep" / "governor.json")
    assert store.load() == {}
    store.save({"dwell": {"3": 40.0}})
    store.save({"dwell": {"3": 80.0}})
    assert StateFile(store.path).load() == {"dwell": {"3": 80.0}}
    assert os.listdir(store.path.parent) == ["governor.json"], "nothing is left beside it"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"format": "something/9", "governor": {}}',
        b'{"format": "edge-app/governor-state/1", "governor": 3}',
    ],
)
def test_garbage_is_not_used(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "governor.json"
    path.write_bytes(content)
    assert StateFile(path).load() == {}


def test_a_place_that_cannot_be_written_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    store = StateFile(file / "governor.json")
    with caplog.at_level(logging.WARNING):
        store.save({})
        store.save({})
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot be saved" in caplog.text


def test_a_failed_save_leaves_the_old_state(tmp_path: Path) -> None:
    store = StateFile(tmp_path / "governor.json")
    store.save({"kept": 1})
    # A directory of the name that the temporary file would have.
    (tmp_path / f".governor.json.{os.getpid()}").mkdir()
    store.save({"lost": 2})
    assert store.load() == {"kept": 1}


def test_the_service_manager_decides_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state_path() == tmp_path / "edge-app" / "governor.json"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/edge-app:/var/lib/other")
    assert default_state_path() == Path("/var/lib/edge-app/governor.json")
