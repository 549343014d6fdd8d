"""The files of a device in a dictionary, so that reading one may fail as drivers fail."""

from __future__ import annotations

import errno

from edge_app.clock import ManualClock
from edge_app.sensors import SensorStatus, SysfsSensors
from edge_app.sensors.root import Attribute, natural

Tree = dict[str, str | int]
"""Path to content, or to the number of the error that reading gives."""


class Files:
    """A ``Root`` over a dictionary that a test changes as it likes."""

    name = "a dictionary"

    def __init__(self, tree: Tree, is_this_machine: bool = False) -> None:
        self.tree = dict(tree)
        self.is_this_machine = is_this_machine
        self.asked: list[str] = []

    def read(self, path: str) -> Attribute:
        self.asked.append(path)
        content = self.tree.get(path, errno.ENOENT)
        if isinstance(content, int):
            return Attribute(None, errno.errorcode[content])
        return Attribute(content.strip())

    def entries(self, path: str) -> list[str]:
        prefix = f"{path}/"
        return natural(
            {file[len(prefix) :].partition("/")[0] for file in self.tree if file.startswith(prefix)}
        )

    def remove(self, directory: str) -> None:
        """Take a directory away."""
        for path in [path for path in self.tree if path.startswith(f"{directory}/")]:
            del self.tree[path]

    def rename(self, old: str, new: str) -> None:
        """Give a directory another name."""
        self.tree = {
            f"{new}/{path[len(old) + 1 :]}" if path.startswith(f"{old}/") else path: content
            for path, content in self.tree.items()
        }


class Device:
    """The readers over a tree, with a clock of their own."""

    def __init__(self, tree: Tree) -> None:
        self.files = Files(tree)
        self.clock = ManualClock()
        self.sensors = SysfsSensors(self.files, self.clock)

    def status(self, name: str) -> SensorStatus:
        """The only line of the description with this name."""
        (status,) = (status for status in self.sensors.describe() if status.name == name)
        return status
