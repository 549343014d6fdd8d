"""MQTT with a real broker: what arrives, what waits while it is away, and what is said at the end."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from test_sinks import FRAME, decision, record
from waiting import LIMIT_S, wait_for

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.governor import Event
from edge_app.mqtt import MqttSink, parse_address
from edge_app.mqtt.backlog import COMPACT_LINES, LARGEST, Backlog
from edge_app.mqtt.discovery import SENSORS

BROKER = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
needs_broker = pytest.mark.skipif(
    not Path(BROKER).exists() and not os.environ.get("CI"),
    reason="needs apt-get install mosquitto",
)
IGNORED = list[Event]().append


class Broker:
    """mosquitto on a port of its own, and a client that hears everything."""

    def __init__(self, folder: Path) -> None:
        self._settings = f"persistence true\npersistence_location {folder}/\nuser root\n"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"mqtt://127.0.0.1:{self.port}/home/cameras"
        self.heard: list[tuple[str, str, bool]] = []
        self._config = folder / "mosquitto.conf"
        self.settings("allow_anonymous true")
        self.start()

    def settings(self, lines: str) -> None:
        """What the next start goes by."""
        self._config.write_text(f"listener {self.port} 127.0.0.1\n{self._settings}{lines}\n")

    def start(self) -> None:
        self._process = subprocess.Popen(
            [BROKER, "-c", self._config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda client, data, message: self.heard.append(
            (message.topic, message.payload.decode(), message.retain)
        )

        def connect() -> bool:
            try:
                return self._client.connect("127.0.0.1", self.port) == paho.MQTT_ERR_SUCCESS
            except OSError:
                return False

        wait_for(connect)
        self._client.subscribe("#", 1)
        self._client.loop_start()

    def stop(self) -> None:
        self._client.loop_stop()
        self._client.disconnect()
        self._process.kill()
        self._process.wait()

    def payloads(self, ending: str) -> list[str]:
        return [payload for topic, payload, _ in list(self.heard) if topic.endswith(ending)]

    def events(self) -> list[str]:
        return [json.loads(payload)["text"] for payload in self.payloads("/event")]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.stop()


@needs_broker
def test_states_events_and_discovery_arrive(broker: Broker, tmp_path: Path) -> None:
    sink = MqttSink(parse_address(broker.address), tmp_path / "state", "digits", IGNORED)
    for _ in range(5):
        sink.frame(record(label="seven"), FRAME)
    sink.decision(decision(bits=4, previous_bits=8, cause="thermal", why="hot", battery_charge=0.5))
    sink.notice(Event("source_lost", "camera: no frame for 5 s"))
    wait_for(lambda: len(broker.events()) == 2 and broker.payloads("/state"))
    assert broker.events() == ["8 -> 4 bits: hot", "camera: no frame for 5 s"]
    state = json.loads(broker.payloads("/state")[0])
    assert (state["bits"], state["cause"], state["battery_percent"]) == (4, "thermal", 50.0)
    assert state["labels"] == {"seven": 5} and state["label"] == "seven"
    configs = wait_for(lambda: len(found := broker.payloads("/config")) == len(SENSORS) and found)
    for config in map(json.loads, configs):
        topic = config["state_topic"].removesuffix("/state")
        assert topic == sink.topic and config["device"]["identifiers"] == [sink.device]
        assert config["value_template"].removeprefix("{{ value_json.").removesuffix(" }}") in state
    assert broker.payloads("/availability")[-1] == "online"
    sink.close()
    wait_for(lambda: broker.payloads("/availability")[-1] == "offline")


@needs_broker
def test_what_happens_while_the_broker_is_away_arrives_later_in_order(
    broker: Broker, tmp_path: Path
) -> None:
    sink = MqttSink(parse_address(broker.address), tmp_path / "state", "digits", IGNORED)
    sink.notice(Event("x", "before"))
    wait_for(lambda: broker.events() == ["before"])
    broker.stop()
    for number in range(20):
        sink.notice(Event("x", f"away {number}"))
    broker.start()
    wait_for(lambda: len(broker.events()) >= 21)
    # At least once: one that was on its way when the broker went may come twice.
    assert list(dict.fromkeys(broker.events())) == ["before", *(f"away {n}" for n in range(20))]
    sink.close()


@needs_broker
def test_sending_and_being_confirmed_do_not_wait_for_each_other(
    broker: Broker, tmp_path: Path
) -> None:
    """The threads of paho and ours cross at every start, when the discovery is confirmed; who holds
    two locks then holds them in one order."""
    options = parse_address(broker.address)

    def report() -> None:
        for number in range(20):
            sink = MqttSink(options, tmp_path / str(number), "digits", IGNORED)
            for _ in range(20):
                sink.notice(Event("x", f"of {number}"))
            wait_for(lambda of=f"of {number}": broker.events().count(of) >= 20)
            sink.close()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        reporter = threading.Thread(target=report, daemon=True)
        reporter.start()
        reporter.join(2 * LIMIT_S)
        assert not reporter.is_alive(), "it hangs"
    finally:
        sys.setswitchinterval(interval)
    assert len(broker.events()) >= 400


@needs_broker
def test_a_broker_that_is_away_or_refuses_is_said_once(broker: Broker, tmp_path: Path) -> None:
    said: list[Event] = []
    sink = MqttSink(parse_address(broker.address), tmp_path / "state", "digits", said.append)
    sink.notice(Event("x", "before"))
    wait_for(lambda: broker.events() == ["before"])
    sink.tick()
    assert said == [], "nothing is to be said of one that works"

    def told() -> list[str]:
        sink.tick()
        return [f"{event.kind}: {event.text}" for event in said]

    place = f"127.0.0.1:{broker.port}"
    broker.stop()
    away = f"broker_lost: {place} cannot be reached; what happens waits on this device"
    wait_for(lambda: told() == [away])
    broker.settings("allow_anonymous false")
    broker.start()
    refused = f"broker_lost: {place} refuses: Not authorized; check user and password of --mqtt"
    wait_for(lambda: told() == [away, refused])
    broker.stop()
    broker.settings("allow_anonymous true")
    broker.start()
    wait_for(lambda: told()[-1] == f"broker_back: {place} answers")
    sink.close()
    # Once each; while it restarts it may be away for a moment.
    assert told() in ([away, refused, told()[-1]], [away, refused, away, told()[-1]])


@needs_broker
def test_what_could_not_be_sent_survives_a_restart(broker: Broker, tmp_path: Path) -> None:
    broker.stop()
    sink = MqttSink(parse_address(broker.address), tmp_path / "state", "digits", IGNORED)
    sink.notice(Event("x", "kept"))
    sink.close()
    broker.start()
    again = MqttSink(parse_address(broker.address), tmp_path / "state", "digits", IGNORED)
    assert again.device == sink.device, "the device keeps its name"
    wait_for(lambda: broker.events() == ["kept"])
    again.close()


@needs_broker
def test_a_killed_run_is_reported_offline_by_the_broker(
    broker: Broker, start_edge_app: Any, tmp_path: Path
) -> None:
    process = start_edge_app("run", "--mqtt", broker.address, "--state", tmp_path / "g.json")
    wait_for(lambda: "online" in broker.payloads("/availability"))
    wait_for(lambda: broker.payloads("/config"))
    process.kill()
    process.wait()
    wait_for(lambda: broker.payloads("/availability")[-1] == "offline")


def test_without_a_broker_a_run_goes_on(edge_app: Any) -> None:
    result = edge_app("run", "--mqtt", "mqtt://127.0.0.1:9/x", "--max-frames", 10)
    assert result.returncode == 0, result.stderr
    assert "10 frames" in result.stderr


# --- the backlog -------------------------------------------------------------------------------


def test_the_backlog_is_bounded_on_disk_too(tmp_path: Path) -> None:
    path = tmp_path / "backlog.jsonl"
    backlog = Backlog(path)
    for number in range(LARGEST + 300):
        backlog.add({"n": number})
    assert len(backlog) == LARGEST and backlog.dropped == 300
    assert backlog.first() == {"n": 300}
    for number in range(3 * COMPACT_LINES):
        backlog.sent(backlog.first())
        backlog.add({"n": number})
    assert len(path.read_text().splitlines()) <= COMPACT_LINES + 2
    again = Backlog(path)
    assert len(again) == LARGEST and again.first() == backlog.first()


def test_a_damaged_backlog_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "backlog.jsonl"
    backlog = Backlog(path)
    for number in range(3):
        backlog.add({"n": number})
    backlog.sent(backlog.first())
    path.write_text(path.read_text() + '{"add": {"n": 9')
    assert len(Backlog(path)) == 2
    path.write_bytes(b"\xff\xfe\x00")
    assert len(Backlog(path)) == 0


def test_a_disk_that_cannot_be_written_does_not_stop_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    backlog = Backlog(tmp_path / "file" / "backlog.jsonl")
    backlog.add({"n": 1})
    assert backlog.first() == {"n": 1}
    backlog.sent(backlog.first())
    assert len(backlog) == 0


# --- addresses ---------------------------------------------------------------------------------


def test_addresses() -> None:
    plain = parse_address("mqtt://broker.local")
    assert (plain.host, plain.port, plain.tls, plain.prefix) == (
        "broker.local",
        1883,
        False,
        "edge-app",
    )
    full = parse_address("mqtts://me:p%40ss@10.0.0.1:8884/a/b/")
    assert (full.user, full.password, full.port, full.prefix) == ("me", "p@ss", 8884, "a/b")
    assert "p@ss" not in full.name and full.tls
    for wrong in ("broker", "http://x", "mqtt://", "mqtt://x:99999", "mqtt://x/#"):
        with pytest.raises(AppError, match="--mqtt:.*for example") as raised:
            parse_address(wrong)
        assert raised.value.exit_code == EXIT_USAGE
