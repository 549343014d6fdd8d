"""The page in a real browser: it moves, fills, follows the level, and can be read by everybody.

Screenshots go into the folder that SCREENSHOTS names, else where nobody looks for them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from checks import all_quiet, hard_to_read, wider_than_the_screen
from chromium import NewTab

WAIT_S = 60.0
WITHIN_S = 2.0
LARGEST_PAGE = 150_000

pytestmark = [pytest.mark.browser, pytest.mark.slow]


class Program:
    """A running edge-app with a page."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edge_app", "run", "--serve", "127.0.0.1:0", "--serve-token"]
            + ["secret", *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = ""
        told = threading.Event()

        def read() -> None:
            assert self._process.stderr is not None
            for line in self._process.stderr:
                if found := re.search(r"page (http://\S+)", line):
                    self.url = found[1]
                    told.set()

        threading.Thread(target=read, daemon=True).start()
        assert told.wait(WAIT_S)

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + "state.json", timeout=WAIT_S) as got:
            state: dict[str, Any] = json.load(got)
            return state

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def program(curves: None) -> Iterator[Program]:
    """Forty minutes of heat, cooling and an emptying battery in forty seconds. It looks for the curves
    when it starts, so that they must be there by then."""
    running = Program("--replay-sensors", "heat-and-recover", "--replay-speed", 60)
    yield running
    running.end()


def test_the_page_lives(program: Program, tab: NewTab, screenshots: Path) -> None:
    """Picture, curves and level follow the run; this comes first, while the level changes."""
    page = tab()
    page.open(program.url)
    # When the page showed which level, by the clock that the program's events carry too.
    page.evaluate(
        """window.seen = []; new MutationObserver(() => window.seen.push([Date.now() / 1000,
        Number(document.querySelector('.level strong').textContent)])).observe(
        document.querySelector('[data-panel=now]'), { childList: true }); 0"""
    )
    page.wait("!document.getElementById('picture').hidden")
    pictures = set()
    limit = time.monotonic() + WAIT_S
    while len(pictures) < 5:
        assert time.monotonic() < limit, "the picture stands still"
        pictures.add(
            page.evaluate(
                """(() => { const image = document.getElementById('picture');
                const canvas = document.createElement('canvas');
                canvas.width = canvas.height = 16;
                canvas.getContext('2d').drawImage(image, 0, 0, 16, 16);
                return canvas.toDataURL(); })()"""
            )
        )
    assert re.fullmatch(r"[\d.]+ (ms|s) old", page.text("#age"))
    assert page.text("#label") in "0123456789"
    assert re.fullmatch(r"\d bits", page.text("#picture-level"))

    def inked(chart: str) -> int:
        """Pixels of a curve that have a colour: neither grid nor text has one."""
        count = page.evaluate(
            f"""(() => {{ const canvas = document.querySelector('#{chart} canvas');
            const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            let count = 0;
            for (let i = 0; i < data.length; i += 4)
              if (data[i + 3] > 128 && Math.max(data[i], data[i + 1], data[i + 2])
                  - Math.min(data[i], data[i + 1], data[i + 2]) > 60) count++;
            return count; }})()"""
        )
        return int(count)

    page.wait("document.querySelectorAll('.chart canvas').length === 4")
    levels_to_see = 4
    limit = time.monotonic() + 2 * WAIT_S
    while True:
        state = program.state()
        changes = [entry for entry in state["history"] if entry["event"] == "level"]
        if len(changes) >= levels_to_see and state["decision"]["t"] > 1800:
            break
        assert time.monotonic() < limit, state
        time.sleep(0.5)
    time.sleep(WITHIN_S + 0.5)
    for chart in ("chart-level", "chart-heat", "chart-battery", "chart-latency"):
        assert inked(chart) > 200, chart

    # A level that was replaced within two seconds need not have been shown, its successor must.
    told = [
        (datetime.fromisoformat(entry["t"]).timestamp(), int(entry["text"].split()[2]))
        for entry in changes
    ]
    seen = [(at, bits) for at, bits in page.evaluate("window.seen")]
    began = seen[0][0]
    followed = 0
    for index, (at, bits) in enumerate(told):
        if at < began:
            continue
        expected = {bits} | {b for t, b in told[index:] if t <= at + WITHIN_S}
        shown = {b for t, b in seen if at - 0.1 <= t <= at + WITHIN_S}
        assert shown & expected, (at, bits, seen)
        followed += 1
    assert followed >= 2
    assert page.evaluate("document.title").endswith("edge-app")

    page.screenshot(screenshots / "light.png")
    page.prefer("dark")
    time.sleep(0.5)
    page.screenshot(screenshots / "dark.png")
    all_quiet(page)


def test_light_and_dark_follow_the_system_and_the_button(program: Program, tab: NewTab) -> None:
    page = tab()
    page.open(program.url)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.prefer("dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.press("t")
    assert page.evaluate(ground) == light and page.text("#theme") == "Theme: light"
    page.press("t")
    assert page.evaluate(ground) == dark and page.text("#theme") == "Theme: dark"
    page.open(program.url)
    assert page.text("#theme") == "Theme: dark", "a choice is remembered"
    page.press("t")
    assert page.text("#theme") == "Theme: auto"
    all_quiet(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(program: Program, tab: NewTab, scheme: str) -> None:
    page = tab()
    page.prefer(scheme)
    page.open(program.url)
    page.wait("document.querySelectorAll('.chart canvas').length === 4")
    # Every colour of a cause, whatever binds at present.
    page.evaluate(
        """for (const cause of ['thermal', 'battery', 'deadline', 'load', 'throttle', 'failsafe',
        'policy', 'none', 'fixed']) { const chip = document.createElement('span');
        chip.className = 'cause'; chip.dataset.cause = chip.textContent = cause;
        document.querySelector('.about').append(chip); } 0"""
    )
    assert hard_to_read(page) == []


def test_on_a_phone_nothing_is_wider_than_the_screen(
    program: Program, tab: NewTab, screenshots: Path
) -> None:
    page = tab(390, 844, mobile=True)
    page.open(program.url)
    page.wait("document.querySelectorAll('.chart canvas').length === 4")
    page.wait("!document.getElementById('picture').hidden")
    time.sleep(1.0)
    page.screenshot(screenshots / "phone.png")
    assert wider_than_the_screen(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    small = page.evaluate(
        """[...document.querySelectorAll('button, input, select')].filter((node) =>
        node.checkVisibility() && node.getBoundingClientRect().height < 32)
        .map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert small == [], "too small for a finger"
    all_quiet(page)


def test_everything_can_be_reached_and_moved_by_keys(program: Program, tab: NewTab) -> None:
    page = tab()
    page.open(program.url)
    page.wait("document.querySelectorAll('.chart canvas').length === 4")
    reached = []
    for _ in range(40):
        page.press("Tab", 9)
        reached.append(
            page.evaluate(
                "(document.activeElement.id || document.activeElement.name || "
                "document.activeElement.dataset.span || document.activeElement.className || "
                "document.activeElement.tagName)"
            )
        )
    for name in ("skip", "theme", "hour", "chart-level", "chart-heat", "device", "control_c"):
        assert name in reached, reached
    page.press("2")
    assert page.evaluate("document.querySelector('[data-span=hour]').ariaPressed") == "true"
    page.press("1")
    page.wait("document.querySelectorAll('#chart-heat canvas').length === 1")
    page.wait("document.querySelector('#chart-heat .legend span').textContent !== ''")
    page.wait("fetch('/history.json').then((got) => got.json()).then((d) => d.t.length > 20)")
    page.wait("!document.querySelector('.lost')")
    time.sleep(1.0)  # for the page's own copy of it
    page.evaluate("document.getElementById('chart-heat').focus(); 0")
    legend = "document.querySelector('#chart-heat .legend span').textContent"
    page.wait(legend)
    for _ in range(5):
        page.press("ArrowLeft", 37)
    # In one go: the curves themselves move on every second.
    before, after = page.evaluate(
        f"""(() => {{ const before = {legend}; document.activeElement.dispatchEvent(
        new KeyboardEvent('keydown', {{ key: 'ArrowLeft', shiftKey: true, bubbles: true }}));
        return [before, {legend}]; }})()"""
    )
    assert after < before
    drawn = page.evaluate(
        "[...document.querySelectorAll('.chart canvas')].map((node) => node.offsetWidth)"
    )
    assert min(drawn) > 300, "another span is drawn as wide as the first"
    all_quiet(page)


def test_what_if_shows_two_runs_and_what_is_wrong(
    program: Program, tab: NewTab, screenshots: Path
) -> None:
    page = tab()
    page.open(program.url)
    set_ = "document.querySelector('#what-if [name={}]').value = '{}'; 0"
    page.evaluate(set_.format("hours", "1"))
    page.evaluate(set_.format("control_c", "70"))
    page.evaluate("document.querySelector('#what-if button').click()")
    page.wait("document.querySelectorAll('#what-if-answer tbody tr').length === 2", 2 * WAIT_S)
    assert "what if" in page.text("#what-if-answer")
    page.wait("document.querySelectorAll('#chart-what-if canvas').length === 1")
    page.screenshot(screenshots / "what-if.png")
    all_quiet(page)
    page.evaluate(set_.format("ambient", "warm"))
    page.evaluate("document.querySelector('#what-if button').click()")
    page.wait("document.getElementById('what-if-answer').textContent.includes('°C')", WAIT_S)


def test_the_token_is_asked_for(program: Program, tab: NewTab) -> None:
    page = tab()
    page.open(program.url)
    for token, said in (("wrong", "needs the token"), ("secret", "are being read")):
        page.evaluate(f"document.querySelector('#reload [name=token]').value = '{token}'; 0")
        page.evaluate("document.querySelector('#reload button').click()")
        page.wait(f"document.getElementById('reload-answer').textContent.includes('{said}')")


def test_without_scripts_every_number_is_there(
    program: Program, tab: NewTab, screenshots: Path
) -> None:
    page = tab()
    page.scripts(False)
    page.open(program.url)
    time.sleep(1.5)  # for the picture: nothing tells when it is there
    page.screenshot(screenshots / "no-scripts.png")
    text = page.text("body").replace("\N{NO-BREAK SPACE}", " ")
    state = program.state()
    assert f"policy {state['policy']}" in text
    for heading in ("Level", "Temperature", "Battery", "Sensors", "Events", "Latency"):
        assert heading in text
    assert "°C" in text and "100 ms" in text and "battery charge" in text
    assert page.evaluate("document.querySelector('noscript img').naturalWidth") >= 192
    for useless in ("#theme", ".spans", "#reload", "#picture"):
        assert not page.evaluate(f"document.querySelector('{useless}').checkVisibility()")
    all_quiet(page)


def test_a_checkout_without_npm_has_tables_and_says_how_to_get_curves(
    tab: NewTab, screenshots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serve_rig import Rig

    from edge_app.serve import open_page
    from edge_app.serve import page as page_module

    everything = page_module.assets()
    ours = {name: everything[name] for name in page_module.OURS}
    monkeypatch.setattr(page_module, "assets", lambda: ours)
    rig = Rig()
    rig.frame()
    rig.decide(temperature_c=77.25)
    served = open_page(rig.hub, "127.0.0.1:0")
    try:
        page = tab()
        page.open(served.url)
        page.wait("document.querySelectorAll('[data-panel=history] tbody tr').length > 0")
        assert "packaging/ui/build.sh" in page.text("body")
        assert "77.2" in page.text("[data-panel=history]")
        assert not page.evaluate("document.querySelector('.spans').checkVisibility()")
        page.screenshot(screenshots / "no-curves.png")
        all_quiet(page)
    finally:
        served.close()


def test_the_page_says_when_the_program_is_gone(tab: NewTab, curves: None) -> None:
    program = Program()
    page = tab()
    page.open(program.url)
    page.wait("!document.getElementById('picture').hidden")
    assert page.evaluate("document.getElementById('link').hidden")
    program.end()
    page.wait("!document.getElementById('link').hidden")
    page.wait("document.getElementById('age').classList.contains('old')")
    program_again = Program()
    program_again.end()


def test_the_page_is_small(program: Program, tab: NewTab) -> None:
    page = tab()
    page.open(program.url)
    sizes = page.evaluate(
        """Object.fromEntries([...performance.getEntriesByType('navigation'),
        ...performance.getEntriesByType('resource')].filter((entry) => !entry.name.includes('picture'))
        .map((entry) => [entry.name.replace(location.origin, ''), entry.decodedBodySize]))"""
    )
    assert "/assets/uPlot.iife.min.js" in sizes and "/assets/dashboard.css" in sizes
    assert all(name.startswith("/") for name in sizes), "something comes from elsewhere"
    assert 50_000 < sum(sizes.values()) < LARGEST_PAGE, sizes
