"""Alert rules, the dashboard and the container file: what they name exists, and the alerts work."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

PACKAGING = Path(__file__).parents[2] / "packaging"
RULES = PACKAGING / "prometheus" / "edge-app.rules.yml"
DASHBOARD = PACKAGING / "grafana" / "edge-app.json"
LAPTOP = Path(__file__).with_name("zoo") / "laptop-two-batteries.jsonl"
SERIES = re.compile(r"\b(edge_app_[a-z0-9_]+)(?:\{([^}]*)\})?")
LIMIT_S = 60.0

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("CI"),
    reason="needs apt-get install prometheus",
)


def promtool(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@needs_promtool
def test_the_rules_are_sound() -> None:
    checked = promtool("check", "rules", "--lint-fatal", RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_each_alert_comes_when_it_should_and_not_before() -> None:
    tests = RULES.with_name("edge-app.rules.test.yml")
    tested = promtool("test", "rules", tests)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert alerts == set(re.findall(r"EdgeApp\w+", tests.read_text())), "each has a test"


def test_the_guide_has_every_alert() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    guide = (PACKAGING.parent / "docs" / "operations.md").read_text()
    assert re.findall(r"^\| `(EdgeApp\w+)` \|", guide, re.MULTILINE) == alerts


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The metrics of a real run that has a camera, heat, a battery and a wish how long it lasts."""
    folder = tmp_path_factory.mktemp("scrape")
    # The recording says what time of day it was.
    start = datetime.fromisoformat(json.loads(LAPTOP.read_text().splitlines()[0])["wall"])
    options = ["--replay-sensors", str(LAPTOP), "--replay-speed", "5", "--serve", ":0"]
    options += ["--set", f"battery.until={start + timedelta(hours=3):%H:%M:%S}"]
    with (folder / "messages").open("wb") as messages:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_app", "run", *options],
            stderr=messages,
            env=os.environ | {"XDG_RUNTIME_DIR": str(folder)},
        )
    try:
        limit = time.monotonic() + LIMIT_S
        while time.monotonic() < limit:
            found = re.search(r"http://127\.0\.0\.1:\d+/", (folder / "messages").read_text())
            if found is not None:
                with urllib.request.urlopen(found[0] + "metrics", timeout=LIMIT_S) as answer:
                    text: str = answer.read().decode()
                last = (
                    "edge_app_battery_until_seconds",
                    "edge_app_branches",
                    "edge_app_source_up",
                )
                if all(f"\n{name} " in text for name in last):
                    return text
            assert process.poll() is None, (folder / "messages").read_text()
            time.sleep(0.2)
        raise AssertionError("not all metrics came in a minute")
    finally:
        process.kill()
        process.wait()


@needs_promtool
def test_the_metrics_keep_to_the_conventions(scrape: str) -> None:
    complaints = promtool("check", "metrics", input=scrape).stderr.splitlines()
    # Bits of precision; the linter thinks of an amount of data.
    assert [line for line in complaints if not line.startswith("edge_app_level_bits ")] == []


def labels_by_series(scrape: str) -> dict[str, set[str]]:
    """Of each series that a scrape declares or holds: its labels, where it has samples."""
    known: dict[str, set[str]] = {}
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", scrape, re.MULTILINE):
        suffixes = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        known |= {name + suffix: set() for suffix in suffixes}
    for name, labels in re.findall(r"^(edge_app_\w+)(?:\{(.*)\})? ", scrape, re.MULTILINE):
        known[name] |= set(re.findall(r'(\w+)="', labels))
    return known


def expressions() -> list[str]:
    found = re.findall(r"expr: (?:>\n)?((?:.|\n {10})+)", RULES.read_text())
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        found += [target["expr"] for target in panel.get("targets", [])]
    found += [variable.get("definition", "") for variable in dashboard["templating"]["list"]]
    return found


def test_what_rules_and_dashboard_name_exists(scrape: str) -> None:
    known = labels_by_series(scrape)
    used = [series for expression in expressions() for series in SERIES.findall(expression)]
    assert len({name for name, _ in used}) >= 20
    for name, matchers in used:
        assert name in known, f"{name} is no metric"
        asked = set(re.findall(r"(\w+)(?:=|!=)", matchers)) - {"instance", "job"}
        assert asked <= known[name] or not known[name], f"{name} has no label {asked - known[name]}"


def test_every_metric_is_on_the_dashboard(scrape: str) -> None:
    text = " ".join(expressions())
    names = {
        re.sub(r"_(count|sum|bucket)$", "", name)
        for name in labels_by_series(scrape)
        if "_created" not in name
    }
    details = {"edge_app_branches", "edge_app_branch_frames_total"}  # of the level, which is there
    details |= {"edge_app_energy_joules_total"}
    assert {name for name in names - details if name not in text} == set()


def test_the_dashboard_can_be_imported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (panel["gridPos"]["y"] + y, panel["gridPos"]["x"] + x)
        for panel in panels
        for y in range(panel["gridPos"]["h"])
        for x in range(panel["gridPos"]["w"])
    ]
    assert len(set(cells)) == len(cells), "no panel covers another"
    assert max(x for _, x in cells) < 24
    for panel in panels:
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}", "of whoever imports it"


def test_the_container_file_names_what_exists(edge_app: Any) -> None:
    folder = PACKAGING / "container"
    lines = (folder / "Containerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--" not in line]
    names = {name for group in copied for name in group}
    assert "edge_app" in names
    allowed = (folder / "Containerfile.dockerignore").read_text().splitlines()
    assert names == {line[1:] for line in allowed if line.startswith("!")}
    assert all((PACKAGING.parent / name).exists() for name in names)
    (command,) = [line.removeprefix("CMD ") for line in lines if line.startswith("CMD ")]
    subcommand, *options = json.loads(command)
    known = edge_app(subcommand, "--help").stdout
    assert all(option in known for option in options if option.startswith("--"))
    assert lines.index("USER 10001:10001") < lines.index(f"CMD {command}"), "no root"
