"""Why a step failed: what is not a number, which quantiser is about to collapse, what batch would fit."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable

import torch

from train.branches import MultiBranchNet
from train.quantizers import BranchConv, QuantizedConv


@torch.no_grad()
def not_finite(network: MultiBranchNet) -> str:
    """The name of the first weight or statistic that is not finite, "" if there is none."""
    for name, value in network.state_dict().items():
        if not bool(value.isfinite().all()):
            return str(name)
    return ""


@torch.no_grad()
def describe_ranges(network: MultiBranchNet) -> str:
    """The clipping ranges ``u - l`` that are not finite, and the smallest one, with their places."""
    widths: list[tuple[str, float]] = []
    for name, conv in network.named_modules():
        if not isinstance(conv, QuantizedConv):
            continue
        for bits, value in zip(conv.bits, (conv.act_upper - conv.act_lower).tolist(), strict=True):
            widths.append((f"{name}, activations at {bits} bits", value))
        if isinstance(conv, BranchConv):
            of_filters = (conv.weight_upper - conv.weight_lower).flatten().tolist()
            finite = all(map(math.isfinite, of_filters))
            widths.append((f"{name}, weights", min(of_filters) if finite else math.nan))
    broken = [f"{place}: {value}" for place, value in widths if not math.isfinite(value)]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        return f"ranges u-l that are not finite: {'; '.join(broken[:3])}{more}"
    place, value = min(widths, key=lambda item: item[1])
    return f"all ranges u-l are finite, the smallest is {value:.3g} ({place})"


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that host or accelerator have no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The last two are what oneDNN says when it finds no memory for its buffers.
    signs = ["can't allocate memory", "bad_alloc", "out of memory"]
    signs += ["could not create a primitive", "could not execute a primitive"]
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def largest_batch(trial: Callable[[int], None], size: int) -> int:
    """Halve ``size`` until ``trial(size)`` finds enough memory; 0 when not even 2 images fit."""
    while (size := size // 2) >= 2:
        # What failed before may hang in cycles of frames and tensors.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            trial(size)
            return size
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
    return 0
