"""Tells an MQTT broker what the device sees and how it is: changes at once, a summary each minute.

No picture leaves the device. Topics, below ``PREFIX/DEVICE``: ``availability`` (online, offline; the
broker says offline when the connection breaks), ``state`` (JSON, the newest summary, retained),
``event`` (JSON, each change of level and each event of the governor). Home Assistant finds the device
by itself.
"""

from edge_app.mqtt.publisher import MqttOptions, MqttSink, parse_address

__all__ = ["MqttOptions", "MqttSink", "parse_address"]
