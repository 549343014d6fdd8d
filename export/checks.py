"""What an integer network has to fulfil, so that its exported file computes what was trained."""

from collections.abc import Iterator

import numpy as np

from export.arithmetic import Codes, Floats
from export.integer import (
    Block,
    Convolution,
    IntegerNetwork,
    IntegerNetworkError,
    IntegerStem,
    Layer,
    Level,
    Pool,
    Step,
    StreamQuantizer,
)
from export.packing import DEPTHWISE_SIDES

_INT32_MAX = 2**31 - 1


def check(network: IntegerNetwork) -> None:
    """Refuse a network whose exported file would not compute what was trained.

    Checked: finite scales and biases, weight codes of two bits, the same codes at every level that
    runs a branch, accumulators that fit int32 for every image (and are exact in float32 once they
    have left the stem), and steps that fit together in channels and in what they hand on.

    Raises:
        IntegerNetworkError: the first violation, with the level, branch and layer.
    """
    if not network.levels:
        raise IntegerNetworkError("the network has no level")
    for stem in network.stems:
        _check_stem(stem)
    _check_finite("head", network.head.weight, network.head.bias)
    shared: dict[tuple[int, str], tuple[int, Codes]] = {}
    for bits, level in network.levels.items():
        for branch, name, conv in level.convolutions():
            where = f"{bits} bits, branch {branch}, {name}"
            _check_finite(where, conv.scale, conv.bias)
            _check_convolution(where, conv, 2**bits - 1)
            first_bits, first = shared.setdefault((branch, name), (bits, conv.codes))
            if not np.array_equal(first, conv.codes):
                raise IntegerNetworkError(
                    f"{where}: weight codes differ from those at {first_bits} bits; the weights"
                    " of a branch have one quantiser for all bit-widths"
                )
        for branch, name, step in level.steps():
            _check_quantizers(f"{bits} bits, branch {branch}, {name}", step, 2**bits - 1)
        _check_sequence(network, level)


def _check_stem(stem: IntegerStem) -> None:
    _check_finite("stem", stem.scale, stem.bias)
    _check_pool("stem", stem.pool)
    weight = stem.weight.astype(np.int64)
    largest = int(np.abs(weight).sum(axis=(1, 2, 3)).max()) * 255
    if largest > _INT32_MAX:
        raise IntegerNetworkError(
            f"stem: accumulators can reach {largest}, beyond int32; use smaller weights"
        )


def _check_finite(where: str, *arrays: Floats) -> None:
    for array in arrays:
        if not np.isfinite(array).all():
            raise IntegerNetworkError(f"{where}: a scale, weight or bias is not a finite number")


def _check_convolution(where: str, conv: Convolution, highest: int) -> None:
    if conv.codes.dtype != np.uint8 or conv.codes.ndim != 4 or conv.codes.max(initial=0) > 3:
        raise IntegerNetworkError(f"{where}: weight codes must be uint8 [O, kh, kw, I] in 0..3")
    outputs = conv.codes.shape[0]
    if conv.scale.shape != (outputs,) or conv.bias.shape != (outputs,):
        raise IntegerNetworkError(f"{where}: needs one scale and one bias for each output channel")
    if conv.depthwise and conv.codes.shape[1:] not in {(n, n, 1) for n in DEPTHWISE_SIDES}:
        raise IntegerNetworkError(
            f"{where}: a depthwise convolution takes one input and a square kernel of side"
            f" {', '.join(map(str, DEPTHWISE_SIDES))}, not {list(conv.codes.shape[1:])}"
        )
    largest = 3 * highest * (conv.codes.size // outputs)
    # Below 2^24 the conversion of an accumulator to float32 does not round either.
    if largest >= 2**24:
        raise IntegerNetworkError(
            f"{where}: accumulators can reach {largest}, not exact in float32 from 2^24"
        )


def _check_quantizers(where: str, step: Step, highest: int) -> None:
    for quantizer in _quantizers(step):
        if not (np.isfinite(quantizer.offset) and np.isfinite(quantizer.scale)):
            raise IntegerNetworkError(f"{where}: the quantiser's scale or offset is not finite")
        if quantizer.scale <= 0 or quantizer.highest != highest:
            raise IntegerNetworkError(
                f"{where}: a quantiser needs a positive scale and highest code {highest}"
            )
    limits = (step.lowest, step.highest) if isinstance(step, Block) else step.limits
    if limits is not None and not 0 <= limits[0] <= limits[1] == highest:
        raise IntegerNetworkError(
            f"{where}: requantisation to {limits[0]}..{limits[1]} instead of up to {highest}"
        )


def _quantizers(step: Step) -> Iterator[StreamQuantizer]:
    if step.quantizer is not None:
        yield step.quantizer
    if isinstance(step, Block) and step.shortcut is not None:
        yield step.shortcut.quantizer


def _check_pool(where: str, pool: Pool | None) -> None:
    if pool is not None and not (
        pool.kernel >= 1 and pool.stride >= 1 and 0 <= 2 * pool.pad <= pool.kernel
    ):
        raise IntegerNetworkError(f"{where}: {pool} has windows without a pixel, or no stride")


def _check_sequence(network: IntegerNetwork, level: Level) -> None:
    """Channels and kinds (codes or the stream) of what each step reads and of what there is."""
    for position, (branch, steps) in enumerate(zip(level.branches, level.bodies, strict=True)):
        half = level.half and position == len(level.bodies) - 1
        where = f"{level.bits} bits, branch {branch}"
        channels, codes = int(network.stems[network.stem_index(branch)].weight.shape[0]), False
        for index, step in enumerate(steps):
            where = f"{level.bits} bits, branch {branch}, {step.kind}{index + 1}"
            if codes != (step.quantizer is None):
                raise IntegerNetworkError(
                    f"{where}: reads {'the stream' if codes else 'codes'}, which is not what the"
                    " step before writes"
                )
            channels, codes = _check_step(where, step, channels, codes, half)
        _expect_channels(where, channels, int(network.head.weight.shape[1]), False, "the head")
        if codes:
            raise IntegerNetworkError(f"{where}: the last step has to write the stream")


def _check_step(where: str, step: Step, channels: int, codes: bool, half: bool) -> tuple[int, bool]:
    """Channels of what the step writes, and whether these are codes."""
    if isinstance(step, Layer):
        _expect_channels(where, channels, step.conv.inputs, False, "the convolution")
        _check_pool(where, step.pool)
        if step.conv.depthwise and step.limits is None:
            raise IntegerNetworkError(
                f"{where}: a depthwise convolution writes codes; the stream needs a dense one"
            )
        return step.conv.outputs, step.limits is not None
    for name, conv in step.convolutions():
        if conv.depthwise:
            raise IntegerNetworkError(f"{where}: {name} of a residual block has to be dense")
    _expect_channels(where, channels, step.conv1.inputs, half, "conv1")
    _expect_channels(where, step.conv1.outputs, step.conv2.inputs, False, "conv2")
    if step.shortcut is not None:
        _expect_channels(where, step.conv1.inputs, step.shortcut.conv.inputs, False, "shortcut")
        _expect_channels(where, step.shortcut.conv.outputs, step.conv2.outputs, False, "the sum")
    elif not half:
        _expect_channels(where, channels, step.conv2.outputs, False, "the sum")
    return step.conv2.outputs, False


def _expect_channels(where: str, there: int, read: int, or_fewer: bool, reader: str) -> None:
    if not (read == there or or_fewer and read < there):
        raise IntegerNetworkError(f"{where}: {reader} takes {read} channels, there are {there}")
