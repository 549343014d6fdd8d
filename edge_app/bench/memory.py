"""Memory that one side of a benchmark holds, measured in a process that does nothing else.

    python -m edge_app.bench.memory FILE BITS THREADS

BITS of 0 means a program of the other side. Prints the anonymous resident bytes that opening the file
and running it twice have added.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def resident_bytes(file: Path, bits: int | None, threads: int) -> int | None:
    """Bytes that a side holds once it has run; None where this cannot be measured.

    Args:
        bits: the level of a model file, None for a program of the other side.
    """
    arguments = [str(file), str(bits or 0), str(threads)]
    command = [sys.executable, "-P", "-m", "edge_app.bench.memory", *arguments]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    text = child.stdout.strip()
    return int(text) if child.returncode == 0 and text.isdecimal() else None


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status does not say RssAnon")


def _added_by(file: str, bits: int, threads: int) -> int:
    import numpy as np

    from native_ops import Program
    from native_ops.peer import PeerProgram, load_xnnpack

    if bits == 0:
        load_xnnpack(threads)
        before = _anonymous_bytes()
        peer = PeerProgram.open(file)
        image = np.zeros(peer.input_shape, np.float32)
        for _ in range(2):
            peer.run(image)
        return _anonymous_bytes() - before
    before = _anonymous_bytes()
    with Program.open(file, threads=threads) as model:
        pixels = np.zeros(model.input_shape, np.uint8)
        for _ in range(2):
            model.run(bits, pixels)
        return _anonymous_bytes() - before


if __name__ == "__main__":
    print(max(0, _added_by(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
