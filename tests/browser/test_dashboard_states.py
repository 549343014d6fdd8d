"""What the page shows of a device that is not well: a battery that must last, lost frames, sick sensors.

A hub that was given such a state stands for the device; server, page and browser are the real ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checks import all_quiet, hard_to_read, wider_than_the_screen
from chromium import NewTab, Tab
from governor_samples import make_battery, make_sample, make_zone
from serve_rig import Clock, Rig
from waiting import wait_for

from edge_app.sensors import Quality, Reading
from edge_app.serve import Page, open_page
from edge_app.sources import SourceStatus

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LASTS_S, UNTIL_S = 840.0, 1200.0
LOSSES = {"capture": 20, "stale": 300, "deadline": 40, "shed": 100, "output": 7}


class Device:
    """Five minutes of a run, and its page, which shows the last of them until a test goes on."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.rig = Rig(self.clock)
        self.rig.losses.update(LOSSES)
        self.rig.status = SourceStatus("reconnecting", 4, "no frame for 7 s; opened again in 2 s")
        for second in range(300):
            self.second(second)
        self.page: Page = open_page(self.rig.hub, "127.0.0.1:0")

    def second(self, seq: int, **changes: Any) -> None:
        charge = 0.6 - 0.0005 * seq
        zones = (
            make_zone(71.5, self.clock()),
            make_zone(-273.2, self.clock(), Quality.IMPLAUSIBLE, "gpu-thermal"),
            make_zone(None, self.clock(), Quality.MISSING, "npu-thermal"),
        )
        battery = replace(
            make_battery(charge, self.clock()),
            power=Reading(3.2, self.clock(), Quality.STUCK, "battery power"),
        )
        self.rig.hub._sampled(replace(make_sample(self.clock()), zones=zones, battery=battery))
        values: dict[str, Any] = {
            "bits": 4,
            "cause": "battery",
            "caps": {"thermal": 8, "battery": 4},
            "why": "battery 45 % must last until 18:00",
            "temperature_c": 71.5,
            "forecast_c": 72.0,
            "battery_charge": charge,
            "battery_end_s": LASTS_S,
            "until_s": UNTIL_S,
            "distrusted": ("gpu-thermal",),
        }
        self.rig.decide(**(values | changes))
        self.rig.frame(seq, 40)
        self.clock.seconds += 1.0
        self.rig.hub.tick()
        self.rig.hub.pulse()


@pytest.fixture
def device(curves: None) -> Iterator[Device]:
    running = Device()
    yield running
    running.page.close()


# The columns of the battery's chart in which a colour of the style sheet fills at least half the
# height, and in which it appears at all; from 0 to 1 across the canvas.
COLUMNS = """(() => { const canvas = document.querySelector('#chart-battery canvas');
const { width, height } = canvas;
const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
copy.drawImage(canvas, 0, 0);
const pixels = copy.getImageData(0, 0, width, height).data;
const ink = getComputedStyle(document.documentElement).getPropertyValue('--NAME').trim();
const wanted = [1, 3, 5].map((at) => parseInt(ink.slice(at, at + 2), 16));
const found = { full: [], any: [] };
for (let x = 0; x < width; x++) { let count = 0;
  for (let y = 0; y < height; y++) { const at = 4 * (y * width + x);
    if (pixels[at + 3] > 250 && wanted.every((v, i) => Math.abs(pixels[at + i] - v) < 3)) count++; }
  if (count > height / 2) found.full.push(x / width);
  if (count) found.any.push(x / width); }
return found; })()"""


def columns(tab: Tab, name: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = tab.evaluate(COLUMNS.replace("NAME", name))
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_battery_shows_its_end_and_until_when_it_must_last(
    device: Device, tab: NewTab, screenshots: Path, scheme: str
) -> None:
    page = tab()
    page.prefer(scheme)
    page.open(device.page.url)
    page.wait("document.querySelector('#chart-battery .legend')?.textContent.includes('until')")
    wait_for(lambda: columns(page, "policy")["full"])
    charge, until = columns(page, "battery"), columns(page, "policy")
    assert len(until["full"]) <= 4, "one upright line"
    # Five minutes behind, twenty ahead, and nothing of it off the chart.
    past = max(charge["any"]) - min(charge["any"])
    assert until["full"][0] - max(charge["any"]) == pytest.approx(past * UNTIL_S / 300, rel=0.1)
    projected = [x for x in columns(page, "ink")["any"] if x > max(charge["any"])]
    assert max(projected) - max(charge["any"]) == pytest.approx(past * LASTS_S / 300, rel=0.1)
    assert "would end" in page.text("#chart-battery .legend")
    panel = page.text("[data-panel=battery]")
    assert "Meant to last" in panel and "6 min too short" in panel

    # On a charger nothing ends, and what it is to last for still stands.
    device.second(300, battery_end_s=None)
    page.wait("!document.querySelector('#chart-battery .legend').textContent.includes('end')")
    wait_for(lambda: max(columns(page, "ink")["any"], default=0.0) <= max(charge["any"]))
    assert 1 <= len(columns(page, "policy")["full"]) <= 4
    page.screenshot(screenshots / f"battery-{scheme}.png")
    all_quiet(page)


def rows(tab: Tab, panel: str) -> list[list[str]]:
    """The texts of a panel's table, row by row."""
    found: list[list[str]] = tab.evaluate(
        f"""[...document.querySelectorAll('[data-panel={panel}] tbody tr')].map((row) =>
        [...row.children].map((cell) => cell.innerText.replace(/\\s+/g, ' ').trim()))"""
    )
    return found


@pytest.mark.parametrize("scripts", [True, False])
def test_every_lost_frame_has_its_reason_and_every_sensor_its_state(
    device: Device, tab: NewTab, scripts: bool
) -> None:
    page = tab()
    page.scripts(scripts)
    # Without scripts it goes on loading: the moving picture is part of it, and the camera is gone.
    page.call("Page.navigate", url=device.page.url)
    page.wait("document.querySelector('[data-panel=events]') !== null")
    # What is read depends on the layout: without it a name runs into its explanation.
    page.wait("document.querySelector('link[href$=\"dashboard.css\"]').sheet !== null")
    total = 300 + sum(LOSSES.values()) - LOSSES["output"]
    found = {cells[0].split()[0]: cells[1:3] for cells in rows(page, "losses")}
    assert found.pop("classified") == ["300", f"{300 / total:.1%}".replace("%", " %")]
    assert {name: int(count) for name, (count, _) in found.items()} == LOSSES
    assert found["stale"][1] == f"{300 / total:.1%}".replace("%", " %")
    lengths = page.evaluate(
        """[...document.querySelectorAll('[data-panel=losses] tbody .bar rect:not(.rail)')]
        .map((bar) => bar.getBoundingClientRect().width)"""
    )
    assert lengths[0] == pytest.approx(lengths[2], rel=0.01), "as many were lost as were classified"
    assert lengths[2] == pytest.approx(3 * lengths[4], rel=0.01)
    text = page.text("[data-panel=losses]")
    assert "opened again 4 times" in text and "no frame for 7 s" in text
    badge = page.evaluate("document.querySelector('[data-panel=health] .badge').className")
    assert badge == "badge bad", "it works as it should, but not well"

    state = {cells[0]: cells[1:] for cells in rows(page, "sensors")}
    qualities = {name: cells[-1] for name, cells in state.items()}
    assert state["temperature of cpu-thermal"] == ["71.5 °C", "ok"]
    assert qualities["temperature of gpu-thermal"] == "implausible"
    assert qualities["temperature of npu-thermal"] == "missing"
    assert qualities["power out of the battery"] == "stuck"
    assert "Not on this device" in page.text("[data-panel=sensors]")
    all_quiet(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 360])
def test_it_can_be_read_when_things_are_bad(
    device: Device, tab: NewTab, screenshots: Path, scheme: str, width: int
) -> None:
    page = tab(width, 800, mobile=width < 500)
    page.prefer(scheme)
    page.open(device.page.url)
    page.wait("document.querySelectorAll('.chart canvas').length === 4")
    time.sleep(0.5)
    assert hard_to_read(page) == []
    assert wider_than_the_screen(page) == []
    page.screenshot(screenshots / f"bad-{scheme}-{width}.png")
    all_quiet(page)
