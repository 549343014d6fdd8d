"""A browser, its tabs, and what a wheel brings along that a checkout has not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium, NewTab, Tab, find

BUILD_UI = Path(__file__).parents[2] / "packaging" / "ui" / "build.sh"


def missing(what: str) -> None:
    """Skip, or fail in continuous integration, which has everything."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    program = find()
    if program is None:
        missing("no Chromium; on Debian or Ubuntu: apt-get install chromium")
        raise AssertionError
    running = Chromium(program, tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def curves() -> None:
    """uPlot, as a wheel has it."""
    done = subprocess.run([BUILD_UI], capture_output=True, text=True)
    if done.returncode:
        missing(done.stderr.strip())


@pytest.fixture
def tab(browser: Chromium) -> Iterator[NewTab]:
    """Opens tabs of a desktop's size that are closed with the test."""
    opened: list[Tab] = []

    def new(width: int = 1360, height: int = 900, mobile: bool = False) -> Tab:
        opened.append(browser.tab())
        opened[-1].size(width, height, mobile)
        opened[-1].prefer("light")
        return opened[-1]

    yield new
    for one in opened:
        one.call("Page.close")
        one.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
