"""torchvision, also beside a CPU-only torch.

torchvision's published build registers fake kernels for two operators that only its CUDA library
defines; beside a CPU-only torch its import fails. Declaring the two schemas first cures that.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

_declared: Any = None  # torch forgets the schemas when this is collected


def torchvision_datasets() -> Any:
    """The module ``torchvision.datasets``."""
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    global _declared
    _declared = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    _declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision.datasets")
