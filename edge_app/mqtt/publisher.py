"""The connection to the broker: kept up in the background, never waited for."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.governor import Event
from edge_app.mqtt.backlog import Backlog
from edge_app.mqtt.discovery import discovery
from edge_app.record import FrameRecord, rfc3339

if TYPE_CHECKING:
    from edge_app.governor import Decision
    from edge_app.sources import Frame

SUMMARY_EVERY_S = 60.0
KEEP_ALIVE_S = 30
PORTS = {"mqtt": 1883, "mqtts": 8883}
ONLINE, OFFLINE = "online", "offline"
AWAY = "cannot be reached; what happens waits on this device"


@dataclass(frozen=True)
class MqttOptions:
    """Where to. ``discovery``: Home Assistant's prefix."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None
    prefix: str = "edge-app"
    discovery: str = "homeassistant"

    @property
    def name(self) -> str:
        """For messages: without the password."""
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}/{self.prefix}"


def parse_address(address: str) -> MqttOptions:
    """``mqtt://[USER:PASSWORD@]HOST[:PORT][/PREFIX]`` or mqtts. AppError (exit code 2) otherwise."""
    try:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in PORTS or not parts.hostname:
            raise ValueError("it must begin with mqtt:// or mqtts:// and a host")
        prefix = parts.path.strip("/") or "edge-app"
        if parts.fragment or "#" in address or "+" in prefix:
            raise ValueError("the prefix must not contain + or #")
        port = parts.port or PORTS[parts.scheme]
    except ValueError as error:
        raise AppError(
            f"--mqtt: {error}; for example mqtt://user:password@192.168.1.2/edge-app", EXIT_USAGE
        ) from None
    user, password = (
        None if part is None else urllib.parse.unquote(part)
        for part in (parts.username, parts.password)
    )
    return MqttOptions(parts.hostname, port, parts.scheme == "mqtts", user, password, prefix)


def device_id(directory: Path) -> str:
    """A random name that stays the same on this device; nothing of the hardware is in it."""
    path = directory / "device-id"
    try:
        known = path.read_text().strip()
        if known:
            return known
    except OSError:
        pass
    fresh = f"edge-{secrets.token_hex(4)}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".device-id.{os.getpid()}")
        beside.write_text(fresh + "\n")
        beside.replace(path)
    except OSError:
        pass  # a new name at every start then
    return fresh


class MqttSink:
    """Publishes changes at once and a summary every minute, from threads of its own.

    While the broker is away messages wait on disk (``directory``) and are sent later, each with the
    time at which it was true. ``say`` is told when the broker goes away, refuses and comes back, from
    the thread that calls ``tick``. AppError (exit code 2) if paho-mqtt is not installed.
    """

    def __init__(
        self, options: MqttOptions, directory: Path, model: str, say: Callable[[Event], None]
    ) -> None:
        try:
            import paho.mqtt.client as paho
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError:
            raise AppError("--mqtt needs paho-mqtt: pip install paho-mqtt", EXIT_USAGE) from None
        self.device = device_id(directory)
        self.topic = f"{options.prefix}/{self.device}"
        self._options = options
        self._model = model
        self._backlog = Backlog(directory / "mqtt-backlog.jsonl")
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._confirmed: SimpleQueue[int | None] = SimpleQueue()
        self._summed = time.monotonic()
        self._frames = 0
        self._labels: Counter[str] = Counter()
        self._newest: FrameRecord | None = None
        self._decision: Decision | None = None
        self._ok = paho.MQTT_ERR_SUCCESS
        self._say = say
        self._trouble = ""
        self._news: SimpleQueue[Event] = SimpleQueue()
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=self.device)
        if options.user is not None:
            client.username_pw_set(options.user, options.password)
        if options.tls:
            client.tls_set()
        client.will_set(f"{self.topic}/availability", OFFLINE, qos=1, retain=True)
        client.reconnect_delay_set(1, 30)
        client.on_connect = self._connected
        client.on_connect_fail = lambda client, data: self._troubled(AWAY)
        client.on_disconnect = self._disconnected
        client.on_publish = self._published
        self._client = client
        client.connect_async(options.host, options.port, KEEP_ALIVE_S)
        client.loop_start()
        self._sender = threading.Thread(target=self._send, name="mqtt", daemon=True)
        self._sender.start()

    # From the pipeline -------------------------------------------------------------------------

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        self._newest = record
        self._frames += 1
        self._labels[record.label] += 1

    def decision(self, decision: Decision) -> None:
        self._decision = decision
        for event in decision.events:
            self._event(event.kind, event.text)
        if decision.changed:
            self._event(
                "level", f"{decision.previous_bits} -> {decision.bits} bits: {decision.why}"
            )
            self._summarize()

    def notice(self, event: Event) -> None:
        self._event(event.kind, event.text)

    def tick(self) -> None:
        while not self._news.empty():
            self._say(self._news.get())
        if time.monotonic() - self._summed >= SUMMARY_EVERY_S:
            self._summarize()

    def close(self) -> None:
        """Say goodbye if the broker is there; wait a second at most."""
        self._summarize()
        limit = time.monotonic() + 1.0
        while self._client.is_connected() and len(self._backlog) and time.monotonic() < limit:
            time.sleep(0.01)
        self._closing = True
        self._wake.set()
        if self._client.is_connected():
            goodbye = self._client.publish(f"{self.topic}/availability", OFFLINE, 1, True)
            goodbye.wait_for_publish(1.0)
        self._client.disconnect()
        self._client.loop_stop()

    def _event(self, kind: str, text: str) -> None:
        self._put("event", {"t": rfc3339(time.time()), "event": kind, "text": text}, retain=False)

    def _summarize(self) -> None:
        now = time.monotonic()
        seconds, self._summed = max(1e-3, now - self._summed), now
        record, decision = self._newest, self._decision
        battery = decision.battery_charge if decision else None
        state = {
            "t": rfc3339(time.time()),
            "model": self._model,
            "bits": decision.bits if decision else None,
            "cause": decision.cause if decision else None,
            "why": decision.why if decision else None,
            "temperature_c": decision.temperature_c if decision else None,
            "battery_percent": None if battery is None else round(battery * 100, 1),
            "fps": round(self._frames / seconds, 2),
            "frames": self._frames,
            "label": record.label if record else None,
            "labels": dict(self._labels.most_common(10)),
        }
        self._frames = 0
        self._labels.clear()
        self._put("state", state, retain=True)

    def _put(self, topic: str, payload: dict[str, Any], retain: bool) -> None:
        with self._lock:
            self._backlog.add({"topic": topic, "payload": payload, "retain": retain})
        self._wake.set()

    # From paho's thread ------------------------------------------------------------------------

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._troubled(f"refuses: {reason}; check user and password of --mqtt")
            return
        self._troubled("")
        options = self._options
        client.publish(f"{self.topic}/availability", ONLINE, 1, True)
        name = f"edge-app {self.device.removeprefix('edge-')}"
        found = discovery(options.discovery, self.topic, self.device, name)
        for topic, config in found.items():
            client.publish(topic, json.dumps(config, ensure_ascii=False), 1, True)
        self._wake.set()

    def _disconnected(
        self, client: Any, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        self._confirmed.put(None)
        self._wake.set()
        # One who is refused is also disconnected, by which nothing new is said.
        if not self._closing and not self._trouble:
            self._troubled(AWAY)

    def _troubled(self, what: str) -> None:
        """What keeps us from the broker, "" if nothing does any more; said once."""
        if what == self._trouble:
            return
        self._trouble = what
        kind, text = ("broker_lost", what) if what else ("broker_back", "answers")
        self._news.put(Event(kind, f"{self._options.host}:{self._options.port} {text}"))

    def _published(self, client: Any, data: Any, number: int, reason: Any, properties: Any) -> None:
        self._confirmed.put(number)
        self._wake.set()

    def _send(self) -> None:
        """One message after the other, each confirmed by the broker before the next.

        Paho calls back with locks of its own in hand, which ``publish`` takes too: neither side may
        wait for a lock of ours meanwhile.
        """
        message: dict[str, Any] | None = None
        on_its_way: int | None = None
        while not self._closing:
            self._wake.wait(1.0)
            self._wake.clear()
            while not self._confirmed.empty():
                number = self._confirmed.get()
                if number is None:
                    on_its_way = None  # nobody will confirm it: it is sent again
                elif number == on_its_way:
                    on_its_way = None
                    with self._lock:
                        self._backlog.sent(message)
            with self._lock:
                message = self._backlog.first() if on_its_way is None else message
            if message is None or on_its_way is not None or not self._client.is_connected():
                continue
            info = self._client.publish(
                f"{self.topic}/{message['topic']}",
                json.dumps(message["payload"], ensure_ascii=False),
                1,
                message["retain"],
            )
            if info.rc == self._ok:
                on_its_way = info.mid
