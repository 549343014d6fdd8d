"""Where frames come from: the test stream, cameras, network streams, files and directories.

A source hands out frames as they are (any size, BGR or RGB); resizing and colour belong to the
pipeline. Only this room opens cameras and image files, and OpenCV is imported only by the
sources that need it.
"""

from edge_app.sources.base import EndOfSource, Frame, Source, SourceStatus
from edge_app.sources.opening import DEFAULT_CAMERA, TEST_DIGITS, open_source

__all__ = [
    "DEFAULT_CAMERA",
    "TEST_DIGITS",
    "EndOfSource",
    "Frame",
    "Source",
    "SourceStatus",
    "open_source",
]
