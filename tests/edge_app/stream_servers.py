"""A server of motion JPEG on loopback that behaves as badly as a test wants."""

from __future__ import annotations

import itertools
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


def flat(value: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def encoded(value: int, height: int = 24, width: int = 32) -> bytes:
    return bytes(cv2.imencode(".jpg", flat(value, height, width))[1])


class PictureServer(ThreadingHTTPServer):
    """``/stream.mjpg`` plays pictures, ``/clip.avi`` is ``clip``.

    ``cut``: connections are closed and none is accepted (the camera is off). ``stall``: connections
    stay open and nothing comes. ``garbage``: bytes that are no picture come instead. ``reset_after``:
    a connection is reset after so many pictures. ``size``: height and width of the pictures.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cut = threading.Event()
        self.stall = threading.Event()
        self.garbage = threading.Event()
        self.reset_after: int | None = None
        self.size = (24, 32)
        self.clip = b""
        self.connections = itertools.count(1)
        self.connected = 0
        self.interval_s = 0.01
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.cut.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: PictureServer

    def do_GET(self) -> None:
        server = self.server
        if server.cut.is_set():
            self.send_error(503)
            return
        self.send_response(200)
        if self.path == "/clip.avi":
            self.send_header("Content-Length", str(len(server.clip)))
            self.end_headers()
            self.wfile.write(server.clip)
            return
        server.connected = next(server.connections)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            self._play()
        except OSError:
            pass  # the reader has gone

    def _play(self) -> None:
        server = self.server
        for count in itertools.count(1):
            if server.cut.wait(server.interval_s):
                return
            if server.stall.is_set():
                continue
            if server.garbage.is_set():
                self.wfile.write(bytes(range(256)) * 8)
                continue
            jpeg = encoded(128, *server.size)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")
            if server.reset_after is not None and count >= server.reset_after:
                # Linger on, with no time: the kernel sends a reset instead of an orderly end.
                no_time = b"\1\0\0\0\0\0\0\0"
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_time)
                self.connection.close()
                return

    def log_message(self, *args: object) -> None:
        pass
