"""What ours is measured against, in the same process: XNNPACK, and the most that this CPU can do.

ExecuTorch's package holds XNNPACK as a shared library that registers itself with the libexecutorch.so
that the process already has, which is ours: both sides run in one runtime. The Python packages of
PyTorch and ExecuTorch are not imported.
"""

from __future__ import annotations

import ctypes
import os
from importlib import metadata, util
from pathlib import Path

import numpy as np
import numpy.typing as npt

from native_ops import _native

_RUNTIME = "libexecutorch.so"
_BACKEND = "libexecutorch_backend_xnnpack.so"
_THREADS = "libexecutorch_threadpool.so"
# C++ functions of ExecuTorch's pool of threads, whose header its package leaves out.
_POOL = "_ZN10executorch9extension10threadpool14get_threadpoolEv"
_POOL_COUNT = "_ZNK10executorch9extension10threadpool10ThreadPool16get_thread_countEv"
_POOL_RESET = "_ZN10executorch9extension10threadpool10ThreadPool24_unsafe_reset_threadpoolEj"


class PeerError(RuntimeError):
    """The other side cannot run; says why and what to do."""


def load_xnnpack(threads: int) -> None:
    """Make XNNPACK ready in this process, on so many threads, the caller's among them.

    Programs that are open keep a pointer to the threads: only the first call may choose their number.

    Raises:
        PeerError: it is not installed, of another version, or already runs on other threads.
    """
    folder = _libraries()
    try:
        pool_library = ctypes.CDLL(str(folder / _THREADS))
        ctypes.CDLL(str(folder / _BACKEND))
        get, count, reset = (
            getattr(pool_library, name) for name in (_POOL, _POOL_COUNT, _POOL_RESET)
        )
    except (OSError, AttributeError) as error:
        raise PeerError(f"XNNPACK does not load: {error}; install executorch again") from None
    get.restype = ctypes.c_void_p
    count.argtypes, count.restype = [ctypes.c_void_p], ctypes.c_size_t
    reset.argtypes, reset.restype = [ctypes.c_void_p, ctypes.c_uint], ctypes.c_bool
    loaded = {line.split()[-1] for line in _maps() if line.endswith(f"/{_RUNTIME}")}
    if len(loaded) != 1:
        raise PeerError(f"two runtimes in one process: {', '.join(sorted(loaded))}")
    pool = get()
    if count(pool) != threads:
        if _OPENED:
            raise PeerError("XNNPACK already runs on another number of threads")
        if not reset(pool, threads):
            raise PeerError(f"XNNPACK does not run on {threads} threads")


_OPENED: list[Path] = []


def _maps() -> list[str]:
    return Path("/proc/self/maps").read_text().splitlines()


def _libraries() -> Path:
    """The folder of ExecuTorch's shared libraries, without importing it."""
    needed = _native.EXECUTORCH_VERSION.partition("+")[0]
    spec = util.find_spec("executorch")
    locations = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not locations or not (Path(locations[0]) / "lib" / _BACKEND).is_file():
        raise PeerError(
            "XNNPACK comes with ExecuTorch, which is not installed:"
            f" pip install --no-deps executorch=={needed}"
        )
    installed = metadata.version("executorch").partition("+")[0]
    if installed != needed:
        raise PeerError(
            f"executorch {installed} is installed, this build runs {needed}:"
            f" pip install --no-deps executorch=={needed}"
        )
    return Path(locations[0]) / "lib"


class PeerProgram:
    """A program of one float32 tensor to another. Made by `PeerProgram.open`.

    Attributes:
        path: the file.
        input_shape: as the numbers lie in memory; (1, height, width, channels) for images.
    """

    def __init__(self, path: Path, native: _native.PeerProgram) -> None:
        self.path = path
        self._native = native
        self.input_shape = tuple(native.input_sizes)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> PeerProgram:
        """Read and load a program. `load_xnnpack` comes first where it uses that.

        Raises:
            PeerError: the file is missing, or does not load.
        """
        path = Path(path)
        try:
            native = _native.PeerProgram(np.fromfile(path, dtype=np.uint8))
        except OSError as error:
            raise PeerError(f"{path}: {error.strerror or error}") from None
        except RuntimeError as error:
            raise PeerError(f"{path}: {error}") from None
        _OPENED.append(path)
        return cls(path, native)

    def run(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Output of one input, flat.

        Raises:
            ValueError: another shape or type than `input_shape` and float32.
            PeerError: the program fails.
        """
        if values.shape != self.input_shape or values.dtype != np.float32:
            raise ValueError(
                f"{self.path}: takes float32 of shape {self.input_shape},"
                f" got {values.dtype} {values.shape}"
            )
        try:
            return self._native.run(np.ascontiguousarray(values))
        except RuntimeError as error:
            raise PeerError(f"{self.path}: {error}") from error


def roofline(isa: str) -> float:
    """Most multiply-accumulates of 8-bit integers, 10^9 a second, that this thread can do.

    Measured with a loop of the instruction set's multiply that stays in registers.
    """
    return _native.roofline(isa)
