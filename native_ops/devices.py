"""Where a program runs: the CPU, or a GPU through Vulkan.

The model file is the same for both, and so are the logits, bit for bit where the GPU rounds as IEEE 754
says. What a GPU needs is asked for when a program is opened: Vulkan's library is no part of this package.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from native_ops import _native

CPU = "cpu"
AUTO = "auto"
VULKAN = "vulkan"
CHOICES = f"{CPU}, {AUTO}, {VULKAN} or {VULKAN}:N"

DeviceError = _native.DeviceError
"""A GPU that cannot be used, or no longer; says why. The CPU runs the same file."""


@dataclass(frozen=True)
class Device:
    """One that Vulkan found.

    index: N of `vulkan:N`. driver: the driver's own version. version: of Vulkan. software: a CPU that
    pretends to be a GPU. packed_product: whether it multiplies four bytes at once, and fast. clock: whether
    it can measure which shaders are the fastest. problem: why it cannot run programs; empty if it can.
    """

    index: int
    name: str
    driver: str
    version: str
    software: bool
    packed_product: bool
    clock: bool
    problem: str


def vulkan_devices() -> tuple[Device, ...]:
    """All that Vulkan finds, in its order.

    Raises:
        DeviceError: no Vulkan, no device, or a build without the Vulkan part.
    """
    return tuple(
        Device(**{field.name: getattr(found, field.name) for field in fields(Device)})
        for found in _native.vulkan_devices()
    )


@dataclass(frozen=True)
class DeviceStatistics:
    """A level on its device.

    uploaded_bytes: weights, scales and biases that went there since it was opened, of all levels.
    device_bytes: that lie there now, with activations, of all levels. frames, submits: of the level.
    host_microseconds: of the last frame, without waiting; fence_microseconds: waiting;
    device_microseconds: by the device's own clock, 0 where it has none.
    """

    uploaded_bytes: int
    device_bytes: int
    frames: int
    submits: int
    host_microseconds: float
    fence_microseconds: float
    device_microseconds: float

    @classmethod
    def of(cls, native: _native.Statistics) -> Self:
        """As the extension has them."""
        return cls(**{field.name: getattr(native, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Dispatch:
    """A part of a frame on a device.

    tile: of a convolution, pixels by outputs of an invocation. chosen: why it has this shader and tile.
    multiplications: of numbers, however many an instruction multiplies. read_bytes, written_bytes: that its invocations ask for, from caches or memory. least_bytes: every
    operand read and every result written once. waits: for what was dispatched before it.
    """

    layer: str
    shader: str
    tile: str
    chosen: str
    multiplications: int
    invocations: int
    read_bytes: int
    written_bytes: int
    least_bytes: int
    waits: bool

    @classmethod
    def of(cls, native: _native.DispatchSize) -> Self:
        """As the extension has it."""
        return cls(**{field.name: getattr(native, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Choice:
    """index: of Vulkan's device, None for the CPU. reason: why this one, in a few words."""

    index: int | None
    reason: str


def choose(device: str) -> Choice:
    """What `device` means on this machine.

    Args:
        device: `cpu`; `vulkan:N`; `vulkan` for the first one that can compute; `auto` for the first GPU,
            or the CPU where there is none: a CPU that pretends to be a GPU is slower than the kernels.

    Raises:
        ValueError: it is none of these.
        DeviceError: `vulkan` or `vulkan:N`, and there is no such device that can run programs.
    """
    if device == CPU:
        return Choice(None, "asked for")
    name, colon, number = device.partition(":")
    numbered = name == VULKAN and number.isdecimal()
    if device not in (AUTO, VULKAN) and not numbered:
        raise ValueError(f"'{device}' is no device; choose {CHOICES}")
    if device == AUTO:
        return _first_gpu()
    found = vulkan_devices()
    if numbered:
        if int(number) >= len(found):
            raise DeviceError(
                f"Vulkan has no device {number}; it has {', '.join(str(d.index) for d in found)}"
            )
        found = (found[int(number)],)
    for candidate in found:
        if not candidate.problem:
            return Choice(candidate.index, f"{candidate.name}, asked for{_limits(candidate)}")
    raise DeviceError("; ".join(f"{d.name} {d.problem}" for d in found))


def _limits(device: Device) -> str:
    return "" if device.clock else "; without a clock its convolutions stay direct"


def _first_gpu() -> Choice:
    try:
        found = vulkan_devices()
    except DeviceError as error:
        return Choice(None, str(error))
    for candidate in found:
        if not candidate.problem and not candidate.software:
            reason = f"{candidate.name} is the first GPU that computes{_limits(candidate)}"
            return Choice(candidate.index, reason)
    return Choice(None, "; ".join(f"{d.name} {d.problem or 'is no GPU'}" for d in found))
