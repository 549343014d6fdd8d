"""A model file as Python sees it: metadata, levels, and one call an image."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from native_ops import _native, container
from native_ops.devices import (
    AUTO,
    CPU,
    Choice,
    DeviceError,
    DeviceStatistics,
    Dispatch,
    choose,
)

FORMAT = 1
"""The version of the methods and metadata inside the program that this build reads."""

_Result = TypeVar("_Result")

_METHOD_PREFIX = "bits"
# Of constants within a program: a cache line.
_ALIGNMENT = 64


class ModelError(RuntimeError):
    """A model file that cannot be used; the message says which, why and what to do."""


@dataclass(frozen=True)
class LayerTime:
    """What one layer took in one run.

    branch: from 1; 0 for what branches share. layer: kind and shape. kernel: its name.
    macs: multiplications of the direct algorithm. weight_bytes: of weights prepared for the kernel.
    threads: how many shared it. beside: whether other branches ran at the same time.
    """

    branch: int
    layer: str
    kernel: str
    microseconds: float
    macs: int
    weight_bytes: int
    threads: int
    beside: bool


class Program:
    """A multi-branch network at all its precision levels. Made by `Program.open`.

    Attributes:
        path: the file.
        metadata: what the exporter wrote about the network: name, levels and their branches,
            accuracy, sizes, provenance.
        levels: bit-widths in ascending order; each runs the branches that
            `metadata["levels"]` names.
        input_shape: (height, width, 3) of the image that `run` takes.
        labels: one name for each class.
        device: where it runs: `cpu` or `vulkan:N`. A program that loses its device goes on on the CPU.
        device_reason: why there.
        on_device_lost: called once, with the reason, when a run loses the device; None to call nobody.

    Runs may come from several threads and take turns.
    """

    def __init__(self, path: Path, native: _native.Program, choice: Choice) -> None:
        self.path = path
        self._native: _native.Program | None = native
        self.device = CPU if choice.index is None else f"vulkan:{choice.index}"
        self.device_reason = choice.reason
        self.on_device_lost: Callable[[str], None] | None = None
        self._leaving = Lock()
        try:
            file_format = native.constant_int("edge_format")
            if file_format != FORMAT:
                raise ModelError(
                    f"{path}: has format {file_format}, this build reads format {FORMAT};"
                    " export the model again or install the edge-app that it was made for"
                )
            self.metadata: dict[str, Any] = _parse(native.constant_string("edge_metadata"))
            self._signatures = {
                int(method.removeprefix(_METHOD_PREFIX)): native.load(method)
                for method in native.methods()
                if method.startswith(_METHOD_PREFIX)
            }
            self.levels: tuple[int, ...] = tuple(sorted(self._signatures))
            self.labels: tuple[str, ...] = tuple(self.metadata["labels"])
            self.input_shape: tuple[int, int, int] = self._check_signatures()
        except (RuntimeError, ValueError) as error:
            if isinstance(error, (ModelError, DeviceError)):
                raise
            raise ModelError(f"{path}: {error}; export the model again") from error

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        threads: int = 1,
        low_memory: bool = False,
        isa: str | None = None,
        device: str = CPU,
    ) -> Self:
        """Read, verify and load a model file.

        Args:
            threads: how many run each layer, including the caller's.
            low_memory: keep weights packed and unpack them in every run, which is slower; else each
                is prepared for its kernel once, when a level first runs.
            isa: one of `isa_available()`; without it the fastest one, or EDGE_NATIVE_ISA's.
            device: `cpu`, `vulkan`, `vulkan:N` or `auto`; see `devices.choose`. Runs whose device is
                lost go on on the CPU, with the arguments above.

        Raises:
            ModelError: the file is missing, damaged, foreign or of another version.
            DeviceError: the device that was asked for cannot be used; never for `cpu` and `auto`.
            ValueError: threads out of range, no such instruction set, or no such device.
        """
        path = Path(path)
        try:
            contents = _read(path)
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror or error}; check the path") from error
        try:
            program = container.verify(contents.data)
        except container.ContainerError as error:
            raise ModelError(f"{path}: {error}") from error
        code = np.frombuffer(program, dtype=np.uint8)

        def load(choice: Choice) -> _native.Program:
            try:
                return _native.Program(code, threads, low_memory, isa, choice.index)
            except DeviceError:
                raise
            except RuntimeError as error:
                raise ModelError(f"{path}: {error}; export the model again") from error

        choice = choose(device)
        try:
            return cls(path, load(choice), choice)
        except DeviceError as error:
            if device != AUTO:
                raise
            choice = Choice(None, str(error))
            return cls(path, load(choice), choice)

    def run(self, bits: int, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits of one image at one level.

        Args:
            bits: one of `levels`.
            image: uint8 [height, width, 3], RGB, contiguous, of `input_shape`.

        Returns:
            float32 [classes], a new array.

        Raises:
            ValueError: no such level, or an image of another shape or type.
            ModelError: the program fails, which a file that `open` accepted should not.
        """
        native, signature = self._checked(bits, image)
        pixels = np.ascontiguousarray(image)
        return self._guarded(lambda: native.run(f"{_METHOD_PREFIX}{bits}", signature, pixels))

    def prepare(self, bits: int) -> None:
        """Do what the first run of a level does besides running it: choose kernels and prepare
        weights, which takes seconds for a large network. Other runs go on meanwhile.

        Raises:
            ValueError: no such level.
            ModelError: as for `run`.
        """
        native, signature = self._signed(bits)
        self._guarded(lambda: native.prepare(f"{_METHOD_PREFIX}{bits}", signature))

    def profile(self, bits: int, image: npt.NDArray[np.uint8]) -> list[LayerTime]:
        """The time of every layer of one run, in execution order.

        Arguments and errors are those of `run`. The list is empty for a program without a delegate.
        """
        native, signature = self._checked(bits, image)
        pixels = np.ascontiguousarray(image)
        times = self._guarded(lambda: native.profile(f"{_METHOD_PREFIX}{bits}", signature, pixels))
        return [
            LayerTime(
                branch=t.branch,
                layer=t.layer,
                kernel=t.kernel,
                microseconds=t.microseconds,
                macs=t.macs,
                weight_bytes=t.weight_bytes,
                threads=t.threads,
                beside=t.beside,
            )
            for t in times
        ]

    def trace(self, image: npt.NDArray[np.uint8]) -> bytes:
        """An ETDump of a run of every level, not its first: ExecuTorch's own profile, for its
        `devtools.Inspector`.

        Each layer is an event of the delegate. Errors are those of `run`.
        """
        native, signature = self._checked(self.levels[0], image)
        methods = [f"{_METHOD_PREFIX}{bits}" for bits in self.levels]
        pixels = np.ascontiguousarray(image)
        return self._guarded(lambda: native.trace(methods, signature, pixels))

    def _guarded(self, call: Callable[[], _Result]) -> _Result:
        """The result of a call; once more on the CPU where the device was lost meanwhile."""
        try:
            try:
                return call()
            except DeviceError as error:
                self._leave_device(str(error))
                return call()
        except RuntimeError as error:
            raise ModelError(f"{self.path}: {error}") from error

    def _leave_device(self, reason: str) -> None:
        """Go on on the CPU; other runs may have come to the same decision."""
        with self._leaving:
            if self._native is None or self.device == CPU:
                return
            self._native.leave_device()
            self.device, self.device_reason = CPU, reason
        if self.on_device_lost is not None:
            self.on_device_lost(reason)

    def device_statistics(self, bits: int) -> DeviceStatistics:
        """Bytes and times of a level on the device so far.

        Raises:
            ValueError: no such level, or it runs on the CPU.
        """
        return DeviceStatistics.of(self._on_device(bits).statistics(f"{_METHOD_PREFIX}{bits}"))

    def dispatches(self, bits: int) -> list[Dispatch]:
        """What a frame of a level dispatches on the device, in order; errors as above."""
        native = self._on_device(bits)
        return [Dispatch.of(size) for size in native.dispatches(f"{_METHOD_PREFIX}{bits}")]

    def _on_device(self, bits: int) -> _native.Program:
        native = self._native
        if native is None or self.device == CPU:
            raise ValueError(f"{self.path}: runs on no device ({self.device_reason})")
        if bits not in self._signatures:
            raise ValueError(f"{self.path}: has no level of {bits} bits")
        return native

    def _signed(self, bits: int) -> tuple[_native.Program, _native.Signature]:
        if self._native is None:
            raise ValueError(f"{self.path}: is closed")
        signature = self._signatures.get(bits)
        if signature is None:
            choices = ", ".join(map(str, self.levels))
            raise ValueError(f"{self.path}: has no level of {bits} bits; choose from {choices}")
        return self._native, signature

    def _checked(
        self, bits: int, image: npt.NDArray[np.uint8]
    ) -> tuple[_native.Program, _native.Signature]:
        found = self._signed(bits)
        if image.shape != self.input_shape or image.dtype != np.uint8:
            raise ValueError(
                f"{self.path}: takes uint8 images of shape {self.input_shape},"
                f" got {image.dtype} {image.shape}"
            )
        return found

    def close(self) -> None:
        """Free the program's memory and end its threads."""
        self._native = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_signatures(self) -> tuple[int, int, int]:
        """The common input shape; raises ValueError where methods and metadata disagree."""
        described = sorted(int(bits) for bits in self.metadata["levels"])
        if not self.levels or described != list(self.levels):
            raise ValueError(f"has the levels {list(self.levels)} and describes {described}")
        sizes = self.metadata["input"]
        expected = [1, sizes["height"], sizes["width"], 3]
        for bits, signature in self._signatures.items():
            if signature.input != expected or signature.output != [1, len(self.labels)]:
                raise ValueError(
                    f"method {_METHOD_PREFIX}{bits} maps {signature.input} to {signature.output},"
                    f" its metadata says {expected} to {[1, len(self.labels)]}"
                )
        return int(sizes["height"]), int(sizes["width"]), 3


def _read(path: Path) -> npt.NDArray[np.uint8]:
    """A file's bytes, aligned as a program's constants are: the only copy, which stays while it runs.

    What was verified is what runs, whatever happens to the file.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        buffer = np.empty(size + _ALIGNMENT, dtype=np.uint8)
        start = -buffer.ctypes.data % _ALIGNMENT
        filled = 0
        while filled < size:
            count = file.readinto(buffer[start + filled : start + size].data)
            if not count:
                break
            filled += count
    contents = buffer[start : start + filled]
    contents.flags.writeable = False
    return contents


def _parse(text: str) -> dict[str, Any]:
    """Metadata with the keys that a `Program` needs, or ValueError."""
    metadata = json.loads(text)
    if not isinstance(metadata, dict):
        raise ValueError("its metadata is not an object")
    for key, kind in (("levels", dict), ("labels", list), ("input", dict)):
        if not isinstance(metadata.get(key), kind):
            raise ValueError(f"its metadata lacks '{key}'")
    for key in ("height", "width"):
        if not isinstance(metadata["input"].get(key), int):
            raise ValueError(f"its metadata lacks 'input.{key}'")
    return metadata
