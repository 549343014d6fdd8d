"""What a bundle says about its model, and whether that is true here."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_app.errors import EXIT_MODEL, AppError

if TYPE_CHECKING:
    from native_ops import Program

MANIFEST_FORMAT = "edge-app/model/1"
MODEL, MANIFEST, SIGNATURE = "model.pte", "manifest.json", "manifest.json.minisig"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
GOLDEN_IMAGES = 4
GOLDEN_SEED = 20250131
RELATIVE_TOLERANCE = 1e-4
LATENCY_RUNS = 7
LATENCY_FACTOR = 1.5


@dataclass(frozen=True)
class Manifest:
    """``version``: grows from release to release. ``golden``: for each level (bits) the logits of
    ``GOLDEN_IMAGES`` images that every device makes itself. ``latency_ms``: for a machine (by the
    name of its kernels) the median time of each level, where the publisher measured it."""

    name: str
    version: int
    sha256: str
    size: int
    golden: dict[int, list[list[float]]]
    latency_ms: dict[str, dict[int, float]]

    @classmethod
    def parse(cls, content: bytes, place: str) -> Manifest:
        """AppError (exit code 5) says what is wrong with it."""
        try:
            values: Any = json.loads(content)
            if values["format"] != MANIFEST_FORMAT:
                raise ValueError(f"its format is {values['format']!r}, not {MANIFEST_FORMAT!r}")
            manifest = cls(
                name=str(values["name"]),
                version=int(values["version"]),
                sha256=str(values["sha256"]),
                size=int(values["size"]),
                golden={int(bits): rows for bits, rows in values["golden"].items()},
                latency_ms={
                    isa: {int(bits): float(ms) for bits, ms in times.items()}
                    for isa, times in values.get("latency_ms", {}).items()
                },
            )
            for rows in manifest.golden.values():
                if np.asarray(rows, dtype=np.float64).ndim != 2 or len(rows) != GOLDEN_IMAGES:
                    raise ValueError("its golden outputs have the wrong shape")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AppError(f"{place}: not a manifest: {error}", EXIT_MODEL) from None
        if not NAME.fullmatch(manifest.name):
            raise AppError(
                f"{place}: the name {manifest.name!r} is not made of a-z, 0-9, dot and dash",
                EXIT_MODEL,
            )
        return manifest

    def to_json(self) -> bytes:
        """The file's content."""
        values = {
            "format": MANIFEST_FORMAT,
            "name": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "size": self.size,
            "golden": {str(bits): rows for bits, rows in self.golden.items()},
            "latency_ms": {
                isa: {str(bits): ms for bits, ms in times.items()}
                for isa, times in self.latency_ms.items()
            },
        }
        return (json.dumps(values, indent=1) + "\n").encode()


def golden_images(shape: tuple[int, int, int]) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """The images of the golden outputs: a ramp, flat gray, and noise of a fixed seed."""
    random = np.random.default_rng(GOLDEN_SEED)
    size = int(np.prod(shape))
    ramp = (np.arange(size) % 256).astype(np.uint8).reshape(shape)
    noise = [random.integers(0, 256, shape, dtype=np.uint8) for _ in range(GOLDEN_IMAGES - 2)]
    return [ramp, np.full(shape, 128, np.uint8), *noise]


def describe(program: Program, name: str, version: int) -> Manifest:
    """The manifest of an open model, with its outputs and times on this machine."""
    import native_ops

    content = Path(program.path).read_bytes()
    images = golden_images(program.input_shape)
    return Manifest(
        name=name,
        version=version,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        golden={
            bits: [[float(value) for value in program.run(bits, image)] for image in images]
            for bits in program.levels
        },
        latency_ms={native_ops.isa_selected(): latencies_ms(program)},
    )


def latencies_ms(program: Program) -> dict[int, float]:
    """Median milliseconds of each level, after one call to warm up."""
    image = golden_images(program.input_shape)[0]
    medians = {}
    for bits in program.levels:
        program.run(bits, image)
        times = []
        for _ in range(LATENCY_RUNS):
            started = time.perf_counter()
            program.run(bits, image)
            times.append(time.perf_counter() - started)
        medians[bits] = round(statistics.median(times) * 1e3, 4)
    return medians


def check_file(path: Path, manifest: Manifest) -> None:
    """AppError (exit code 5) unless the file at ``path`` is the one that ``manifest`` describes."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AppError(f"{path}: {error.strerror}", EXIT_MODEL) from None
    if len(content) != manifest.size or hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise AppError(
            f"{path}: not the file that its manifest describes (size or SHA-256 differ); fetch it "
            "again",
            EXIT_MODEL,
        )


def check_outputs(path: Path, manifest: Manifest) -> list[str]:
    """Run every level on the golden images; AppError (exit code 5) if an output differs.

    Returns what is odd but no reason to refuse: a level that takes more than 1.5 times what the
    publisher measured with the same kernels.
    """
    import native_ops
    from edge_app.models import open_model

    with open_model(str(path)) as program:
        if set(manifest.golden) != set(program.levels):
            raise AppError(f"{path}: its levels are not those of its manifest", EXIT_MODEL)
        images = golden_images(program.input_shape)
        for bits, rows in manifest.golden.items():
            for image, row in zip(images, rows, strict=True):
                _compare(path, bits, program.run(bits, image), np.asarray(row, np.float32))
        expected = manifest.latency_ms.get(native_ops.isa_selected(), {})
        if not expected:
            return []
        measured = latencies_ms(program)
    return [
        f"{bits} bits take {measured[bits]:.3g} ms, {measured[bits] / limit:.1f} times what the "
        "publisher measured"
        for bits, limit in expected.items()
        if bits in measured and measured[bits] > LATENCY_FACTOR * limit
    ]


def _compare(path: Path, bits: int, got: Any, wanted: Any) -> None:
    scale = max(1e-6, float(np.abs(wanted).max())) if wanted.size else 1.0
    if got.shape != wanted.shape or float(np.abs(got - wanted).max()) > RELATIVE_TOLERANCE * scale:
        raise AppError(
            f"{path}: {bits} bits give other outputs here than where the model was published; it is "
            "not installed",
            EXIT_MODEL,
        )
