"""Decodes the next frames of a file while the model works on this one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping

from edge_app.sources.base import Frame, Source, SourceStatus

AHEAD = 2


class Prefetched:
    """``source``, read by a thread of its own, at most two frames ahead; nothing is left out.

    What ``source`` raises (its end, an error) comes after the frames before it.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name = source.name
        self.live = source.live
        self.nominal_fps = source.nominal_fps
        self.classes = source.classes
        self._ready: queue.Queue[Frame | Exception] = queue.Queue(AHEAD)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._read, name="decode", daemon=True)
        self._thread.start()

    @property
    def losses(self) -> Mapping[str, int]:
        return self._source.losses

    @property
    def status(self) -> SourceStatus:
        return self._source.status

    def read(self, timeout: float) -> Frame | None:
        try:
            item = self._ready.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(item, Exception):
            raise item
        return item

    def _read(self) -> None:
        item: Frame | Exception | None
        while not self._closing.is_set():
            try:
                item = self._source.read(0.1)
            except Exception as error:
                item = error
            while item is not None and not self._closing.is_set():
                try:
                    self._ready.put(item, timeout=0.1)
                except queue.Full:
                    continue
                if isinstance(item, Exception):
                    return
                item = None

    def close(self) -> None:
        self._closing.set()
        self._thread.join(timeout=1.0)
        self._source.close()
