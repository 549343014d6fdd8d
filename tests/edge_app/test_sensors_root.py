"""Reading files below a root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_app.sensors.root import ATTRIBUTE_BYTES, Attribute, Root, SysRoot, natural, place


def test_content_is_stripped(tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/model").write_bytes(b"Raspberry Pi 5\0\n")
    root: Root = SysRoot(tmp_path)
    assert root.read("sys/model") == Attribute("Raspberry Pi 5")
    assert root.read("sys/model").exists


def test_errors_have_names(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    root = SysRoot(tmp_path)
    assert root.read("missing").error == "ENOENT" and not root.read("missing").exists
    assert root.read("file/below").error == "ENOTDIR" and not root.read("file/below").exists
    assert root.read("").error == "EISDIR"
    (tmp_path / "loop").symlink_to("loop")
    assert root.read("loop").error == "ELOOP"


def test_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert SysRoot(tmp_path).read("pipe").error == "ESPIPE"


def test_only_the_first_page_is_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_text("x" * (2 * ATTRIBUTE_BYTES))
    assert SysRoot(tmp_path).read("large").text == "x" * ATTRIBUTE_BYTES


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b"\xff\xfe")
    attribute = SysRoot(tmp_path).read("name")
    assert attribute.text == "\ufffd\ufffd" and attribute.number() is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("42", 0.042), ("-273150", -273.15), ("", None), ("N/A", None), ("4.2", None), (None, None)],
)
def test_numbers(text: str | None, number: float | None) -> None:
    expected = None if number is None else pytest.approx(number)
    assert Attribute(text).number(1e-3) == expected


def test_entries_in_natural_order(tmp_path: Path) -> None:
    for name in ("zone10", "zone9", "BAT0", "zone9a", "AC"):
        (tmp_path / name).touch()
    root = SysRoot(tmp_path)
    assert root.entries(".") == ["AC", "BAT0", "zone9", "zone9a", "zone10"]
    assert root.entries("missing") == [] and root.entries("AC") == []
    assert natural(["10", "a", "2", "a2b10", "a2b9"]) == ["2", "10", "a", "a2b9", "a2b10"]


def test_which_machine(tmp_path: Path) -> None:
    here, copy = SysRoot(), SysRoot(tmp_path)
    assert here.is_this_machine and not copy.is_this_machine
    assert place(here, "sys/class") == "/sys/class"
    assert place(copy, "sys/class") == f"sys/class of {tmp_path}"


def test_names_of_strangers_cannot_drive_a_terminal() -> None:
    assert Attribute("cpu\x1b[2J\nthermal").label == "cpu?[2J?thermal"
    assert len(Attribute("x" * 4096).label) == 64 and Attribute(None).label == ""
