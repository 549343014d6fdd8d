"""An integer network as one ExecuTorch program with a method for each level.

Every method is traced as `mbq::*` operators only, so that a device needs no other kernels, and then
taken as a whole by the engine of `native_ops` (see `delegate`). Constants are stored once where their
bytes are equal, which is why the weights are packed once for each branch, while the scales of a level
lie in its plan.
"""

import json
import operator
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from executorch.exir import (
    EdgeProgramManager,
    ExecutorchBackendConfig,
    to_edge_transform_and_lower,
)
from executorch.exir.dialects.edge._ops import EdgeOpOverload
from executorch.exir.passes import MemoryPlanningPass
from torch import Tensor, nn

from export import ops, packing
from export.checks import check
from export.delegate import MbqPartitioner, operator_name
from export.integer import (
    HALF,
    Block,
    Convolution,
    IntegerNetwork,
    IntegerStem,
    Layer,
    Pool,
    Step,
    StreamQuantizer,
)
from native_ops import container

FORMAT = 1
# What is left in the graph of a method that a delegate took.
_OF_DELEGATES = (torch.ops.higher_order.executorch_call_delegate, operator.getitem)
# One cache line, the widest vector, and the payload of a packed weight after its header.
_ALIGNMENT = 64


class ExportError(RuntimeError):
    """A program that must not be shipped; says what is wrong with it."""


@dataclass(frozen=True)
class Packed:
    """Packed weights of every branch, keyed by (branch, name within the branch)."""

    blobs: dict[tuple[int, str], Tensor]

    @property
    def payload_bytes(self) -> int:
        """Bytes of weight codes, without headers."""
        return sum(blob.numel() - packing.HEADER_BYTES for blob in self.blobs.values())

    @property
    def repeated_bytes(self) -> int:
        """Those of them that half branches repeat."""
        return sum(
            blob.numel() - packing.HEADER_BYTES
            for (branch, name), blob in self.blobs.items()
            if name.startswith(HALF) and (branch, name.removeprefix(HALF)) in self.blobs
        )


def pack_weights(network: IntegerNetwork) -> Packed:
    """Pack each branch once, whichever levels use it, and once more its half if a level uses that."""
    blobs: dict[tuple[int, str], Tensor] = {}
    for level in network.levels.values():
        for branch, name, conv in level.convolutions():
            if (branch, name) not in blobs:
                kind = packing.KIND_DEPTHWISE if conv.depthwise else packing.KIND_DENSE
                blobs[branch, name] = torch.from_numpy(packing.pack(conv.codes, kind))
    return Packed(blobs)


class _Convolution(nn.Module):
    weight: Tensor
    affine: Tensor

    def __init__(
        self, conv: Convolution, blob: Tensor, quantizer: StreamQuantizer | None = None
    ) -> None:
        """quantizer: of the float32 stream that this convolution reads; none where it reads codes."""
        super().__init__()
        self.inputs, self.outputs = conv.inputs, conv.outputs
        self.stride, self.pad = conv.stride, conv.pad
        self.to_codes = (
            torch.ops.mbq.depthwise_codes if conv.depthwise else torch.ops.mbq.conv2d_codes
        )
        self.quantizer = quantizer or StreamQuantizer(1.0, 0.0, 0)
        self.register_buffer("weight", blob)
        self.register_buffer("affine", _tensor(np.stack([conv.scale, conv.bias])))

    def codes(self, x: Tensor, lowest: int, highest: int) -> Tensor:
        q = self.quantizer
        result: Tensor = self.to_codes(
            x, q.scale, q.offset, q.highest, self.weight, self.affine,
            self.stride, self.pad, lowest, highest,
        )  # fmt: skip
        return result

    def stream(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        q = self.quantizer
        result: Tensor = torch.ops.mbq.conv2d_stream(
            x, q.scale, q.offset, q.highest, self.weight, self.affine,
            residual, self.stride, self.pad, relu,
        )  # fmt: skip
        return result


class _Pool(nn.Module):
    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.kernel, self.stride, self.pad = pool.kernel, pool.stride, pool.pad

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mbq.max_pool(x, self.kernel, self.stride, self.pad)
        return result


def _optional_pool(pool: Pool | None) -> nn.Module:
    return nn.Identity() if pool is None else _Pool(pool)


class _Stem(nn.Module):
    weight: Tensor
    affine: Tensor
    pad_value: Tensor

    def __init__(self, stem: IntegerStem) -> None:
        super().__init__()
        self.stride, self.pad = stem.stride, stem.pad
        self.register_buffer("weight", _tensor(stem.weight))
        self.register_buffer("affine", _tensor(np.stack([stem.scale, stem.bias])))
        self.register_buffer("pad_value", _tensor(stem.pad_value))
        self.pool = _optional_pool(stem.pool)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.pool(
            torch.ops.mbq.stem(
                image, self.weight, self.affine, self.pad_value, self.stride, self.pad
            )
        )
        return features


class _Block(nn.Module):
    def __init__(self, block: Block, blobs: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.conv1 = _Convolution(block.conv1, blobs["conv1"], block.quantizer)
        self.lowest, self.highest = block.lowest, block.highest
        self.conv2 = _Convolution(block.conv2, blobs["conv2"])
        self.shortcut: _Convolution | None = None
        if block.shortcut is not None:
            self.shortcut = _Convolution(
                block.shortcut.conv, blobs["shortcut"], block.shortcut.quantizer
            )

    def forward(self, x: Tensor) -> Tensor:
        read = _fit(x, self.conv1.inputs)
        if self.shortcut is None:
            residual = _fit(x, self.conv2.outputs)
        else:
            residual = self.shortcut.stream(read, None, False)
        hidden = self.conv1.codes(read, self.lowest, self.highest)
        return self.conv2.stream(hidden, residual, True)


def _fit(stream: Tensor, channels: int) -> Tensor:
    if stream.shape[3] == channels:
        return stream
    fitted: Tensor = torch.ops.mbq.fit_channels(stream, channels)
    return fitted


class _Layer(nn.Module):
    def __init__(self, layer: Layer, blobs: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.conv = _Convolution(layer.conv, blobs["conv"], layer.quantizer)
        self.limits = layer.limits
        self.pool = _optional_pool(layer.pool)

    def forward(self, x: Tensor) -> Tensor:
        if self.limits is None:
            written = self.conv.stream(x, None, True)
        else:
            written = self.conv.codes(x, *self.limits)
        pooled: Tensor = self.pool(written)
        return pooled


def _step(step: Step, blobs: Mapping[str, Tensor]) -> nn.Module:
    return _Block(step, blobs) if isinstance(step, Block) else _Layer(step, blobs)


class LevelModule(nn.Module):
    """One level as a module of `mbq::*` operators: uint8 [1, H, W, 3] -> float32 [1, classes].

    Raises:
        IntegerNetworkError: the network has no such level.
    """

    head_weight: Tensor
    head_bias: Tensor

    def __init__(self, network: IntegerNetwork, bits: int, packed: Packed) -> None:
        super().__init__()
        level, head = network.level(bits), network.head
        self.stem_of = [network.stem_index(branch) for branch in level.branches]
        self.stems = nn.ModuleDict(
            {str(index): _Stem(network.stems[index]) for index in sorted(set(self.stem_of))}
        )
        self.register_buffer("head_weight", _tensor(head.weight))
        self.register_buffer("head_bias", _tensor(head.bias))
        self.head = torch.ops.mbq.head if head.mean else torch.ops.mbq.head_of_sum
        bodies: dict[int, nn.Sequential] = {branch: nn.Sequential() for branch in level.branches}
        for branch, name, step in level.steps():
            blobs = {n: packed.blobs[branch, f"{name}.{n}"] for n, _ in step.convolutions()}
            bodies[branch].append(_step(step, blobs))
        self.branches = nn.ModuleDict({str(branch): body for branch, body in bodies.items()})

    def forward(self, image: Tensor) -> Tensor:
        features = {int(index): stem(image) for index, stem in self.stems.items()}
        streams = [
            branch(features[index])
            for branch, index in zip(self.branches.values(), self.stem_of, strict=True)
        ]
        logits: Tensor = self.head(streams, self.head_weight, self.head_bias)
        return logits


def lower(network: IntegerNetwork, metadata: Mapping[str, Any]) -> bytes:
    """The contents of a model file: the sealed program of all levels.

    Methods are called `bits2`, `bits4` and so on; `edge_format` and `edge_metadata` (JSON) are
    constant methods.

    Raises:
        IntegerNetworkError: the network fails `integer.check`.
        ExportError: an operator other than `mbq::*` is in a method.
    """
    check(network)
    packed = pack_weights(network)
    modules = {f"bits{bits}": LevelModule(network, bits, packed) for bits in network.levels}
    constants = {"edge_format": FORMAT, "edge_metadata": json.dumps(metadata)}
    return container.seal(lower_modules(modules, network.input_size, constants))


def lower_modules(
    modules: Mapping[str, nn.Module],
    input_size: tuple[int, int],
    constants: Mapping[str, Any],
    delegate: bool = True,
) -> bytes:
    """An ExecuTorch program with one method for each module.

    Args:
        modules: method name -> module of uint8 [1, H, W, 3].
        constants: name -> value of constant methods.
        delegate: whether the engine of `native_ops` takes each method as a whole; else a method
            calls the reference operators one by one.

    Raises:
        ExportError: an operator other than `mbq::*` is left in a method; names method and node.
    """
    example = (torch.zeros((1, *input_size, 3), dtype=torch.uint8),)
    with torch.no_grad():
        exported = {
            name: torch.export.export(module.eval(), example, strict=False)
            for name, module in modules.items()
        }
        edge = to_edge_transform_and_lower(
            exported,
            partitioner=[MbqPartitioner()] if delegate else None,
            constant_methods=dict(constants),
        )
    refuse_other_operators(edge)
    planning = MemoryPlanningPass(alloc_graph_input=False, alignment=_ALIGNMENT)
    config = ExecutorchBackendConfig(
        memory_planning_pass=planning, constant_tensor_alignment=_ALIGNMENT
    )
    return bytes(edge.to_executorch(config).buffer)


def refuse_other_operators(edge: EdgeProgramManager) -> None:
    """Raise ExportError if a method calls anything but `mbq::*`.

    Such a call would run on a portable kernel, hundreds of times slower, or not be found at all by
    a device that has none.
    """
    foreign = []
    for method in sorted(edge.methods):
        for node in edge.exported_program(method).graph.nodes:
            if node.op != "call_function":
                continue
            if operator_name(node.target) is None and node.target not in _OF_DELEGATES:
                foreign.append(f"{method}: node '{node.name}' calls {_operator_name(node.target)}")
    if foreign:
        raise ExportError(
            "the program calls operators that the device does not have:\n  "
            + "\n  ".join(foreign)
            + f"\nexpress these layers with the operators of {ops.NAMESPACE}"
        )


def _operator_name(target: Any) -> str:
    return str(target.name()) if isinstance(target, EdgeOpOverload) else str(target)


def write_beside(path: Path, contents: bytes) -> Path:
    """Write contents to a new file in path's folder and return its path, for a later rename."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    with os.fdopen(handle, "wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(name, 0o644)
    return Path(name)


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(array))
