"""Packed 2-bit operators and the runtime that executes a model file with them.

Layers, each of which knows only those before it:

- `kernels/`: C++ on raw pointers: the reference operators, and the layer kernels of each instruction
  set in translation units of their own, chosen at run time;
- `engine/`: the plan of a level, prepared weights that levels share, the choice of a kernel for each
  layer, and the run;
- `vulkan/`: the same plan on a GPU: shaders, shared weights, one recorded frame for each level;
- `executorch/`: the engine as a delegate, and the reference as operators `mbq::*`, with every
  argument checked;
- `runtime/`: the extension module `_native`, a program behind numpy arrays;
- this package: `Program` with its metadata and its errors, and the model file's `container`.

Only numpy is imported here: a device has neither PyTorch nor ExecuTorch's Python packages.
"""

from native_ops import _native
from native_ops import kernel_api as kernels
from native_ops.devices import Device, DeviceError, vulkan_devices
from native_ops.program import ModelError, Program

__all__ = [
    "Device",
    "DeviceError",
    "ModelError",
    "Program",
    "isa_available",
    "isa_selected",
    "kernel_names",
    "kernels",
    "version_info",
    "vulkan_devices",
]


def isa_available() -> tuple[str, ...]:
    """Instruction sets that this build has kernels for and this CPU runs, slowest first."""
    return tuple(_native.isa_available())


def isa_selected() -> str:
    """The instruction set that runs: the fastest one, or EDGE_NATIVE_ISA.

    Raises:
        ValueError: EDGE_NATIVE_ISA names none that is available.
    """
    return _native.isa_selected()


def kernel_names(isa: str) -> tuple[str, ...]:
    """The convolution kernels of one instruction set of `isa_available()`.

    Raises:
        ValueError: it is none of them.
    """
    return tuple(_native.kernel_names(isa))


def version_info() -> dict[str, str]:
    """What this build is made of: ExecuTorch version, compiler, instruction set in use."""
    return {
        "executorch": _native.EXECUTORCH_VERSION,
        "compiler": _native.COMPILER,
        "isa": isa_selected(),
    }
