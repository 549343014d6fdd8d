from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

COMPILER: str
EXECUTORCH_VERSION: str

Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

class Signature:
    @property
    def input(self) -> list[int]: ...
    @property
    def output(self) -> list[int]: ...

class LayerTime:
    @property
    def branch(self) -> int: ...
    @property
    def layer(self) -> str: ...
    @property
    def kernel(self) -> str: ...
    @property
    def microseconds(self) -> float: ...
    @property
    def macs(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...

class Program:
    def __init__(
        self,
        program: npt.NDArray[np.uint8],
        threads: int,
        low_memory: bool = False,
        isa: str | None = None,
    ) -> None: ...
    def methods(self) -> list[str]: ...
    def constant_int(self, method: str) -> int: ...
    def constant_string(self, method: str) -> str: ...
    def load(self, method: str) -> Signature: ...
    def run(self, method: str, signature: Signature, image: Codes) -> Floats: ...
    def profile(self, method: str, signature: Signature, image: Codes) -> list[LayerTime]: ...

def stem(
    image: Codes,
    weight: npt.NDArray[np.int16],
    affine: Floats,
    pad_value: Codes,
    stride: int,
    pad: int,
) -> Floats: ...
def conv2d_codes(
    input: Codes | Floats,
    in_scale: float,
    in_offset: float,
    in_max: int,
    weight: Codes,
    affine: Floats,
    stride: int,
    pad: int,
    qmin: int,
    qmax: int,
) -> Codes: ...
def conv2d_stream(
    input: Codes | Floats,
    in_scale: float,
    in_offset: float,
    in_max: int,
    weight: Codes,
    affine: Floats,
    residual: Floats | None,
    stride: int,
    pad: int,
    relu: bool,
) -> Floats: ...
def head(streams: Sequence[Floats], weight: Floats, bias: Floats) -> Floats: ...
def isa_available() -> list[str]: ...
def isa_selected() -> str: ...
def prepared_bytes() -> int: ...
