"""The engine of `native_ops` as an ExecuTorch delegate: who claims which operators, and its plan.

The partitioner claims every operator `mbq::*` of a level, so that a level becomes one call of the
delegate. The plan (see `plan`) is private to the level; weights are named data, which ExecuTorch
stores once however many levels use them.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from executorch.exir._serialize._named_data_store import NamedDataStore
from executorch.exir.backend.backend_details import BackendDetails, PreprocessResult
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.partitioner import DelegationSpec, Partitioner, PartitionResult
from executorch.exir.backend.utils import tag_constant_data
from executorch.exir.dialects.edge._ops import EdgeOpOverload
from torch import Tensor, fx
from torch._export.utils import get_buffer, get_lifted_tensor_constant, is_buffer
from torch.export import ExportedProgram

from export import ops, packing, plan
from export.plan import NONE, CodeOutput, Layer, Plan, Value

BACKEND = "MbqEngine"
_TAG = "mbq"


def operator_name(target: Any) -> str | None:
    """`conv2d_codes` for the edge form of `mbq::conv2d_codes`; None for what is not ours."""
    if isinstance(target, EdgeOpOverload) and target.namespace == ops.NAMESPACE:
        return str(target.name()).split("::")[1].split(".")[0]
    return None


class MbqPartitioner(Partitioner):  # type: ignore[misc]
    """Claims all operators `mbq::*` of a program as one partition."""

    def __init__(self) -> None:
        self.delegation_spec = DelegationSpec(BACKEND, [])

    def partition(self, exported_program: ExportedProgram) -> PartitionResult:
        """Tag the operators and the constants that only they use."""
        found = [
            node
            for node in exported_program.graph.nodes
            if node.op == "call_function" and operator_name(node.target)
        ]
        for node in found:
            node.meta["delegation_tag"] = _TAG
        tag_constant_data(exported_program)
        tags = {_TAG: self.delegation_spec} if found else {}
        return PartitionResult(tagged_exported_program=exported_program, partition_tags=tags)


class MbqEngine(BackendDetails):  # type: ignore[misc]
    """Compiles a partition of `mbq::*` operators; the class's name is the backend's."""

    @staticmethod
    def preprocess(
        edge_program: ExportedProgram, compile_specs: list[CompileSpec]
    ) -> PreprocessResult:
        """The plan of the partition, and the constants that levels share as named data."""
        made = Planner(edge_program)
        store = NamedDataStore()
        for key, contents in made.shared.items():
            store.add_named_data(key, contents, alignment=plan.ALIGNMENT)
        return PreprocessResult(
            processed_bytes=made.plan.encode(),
            debug_handle_map={},
            data_store_output=store.get_named_data_store_output(),
        )


class Planner:
    """Walks a level's graph twice: who reads what in which form, then one layer for each operator."""

    def __init__(self, program: ExportedProgram) -> None:
        self.plan = Plan()
        self.shared: dict[str, bytes] = {}
        self._program = program
        self._values: dict[fx.Node, int] = {}
        # Codes that convolutions make of a stream: (stream, scale, offset, highest) -> value.
        self._quantised: dict[tuple[fx.Node, float, float, int], int] = {}
        self._pending: dict[fx.Node, list[tuple[float, float, int]]] = {}
        self._calls = [
            (name, node)
            for node in program.graph.nodes
            if node.op == "call_function" and (name := operator_name(node.target))
        ]
        self._arguments = {node: _arguments(name, node) for name, node in self._calls}
        for name, node in self._calls:
            self._note_reading(name, node)
        for node in program.graph.nodes:
            if node.op == "placeholder" and self._constant(node) is None:
                self._values[node] = self._new(plan.IMAGE, node)
        for name, node in self._calls:
            self._add(name, node)
        self.plan.place()

    # What a stream is read as.

    def _note_reading(self, name: str, node: fx.Node) -> None:
        a = self._arguments[node]
        if "in_scale" in a and _is_stream(a["input"]):
            form = (a["in_scale"], a["in_offset"], a["in_max"])
            wanted = self._pending.setdefault(a["input"], [])
            if form not in wanted:
                wanted.append(form)

    def _border(self, source: fx.Node, form: tuple[float, float, int] | None) -> int:
        """Border that the convolutions need that read `source`, as codes or quantised to `form`."""
        pads = [
            a["pad"]
            for a in self._arguments.values()
            if "in_scale" in a
            and a["input"] is source
            and (form is None or form == (a["in_scale"], a["in_offset"], a["in_max"]))
        ]
        return max(pads, default=0)

    def _needs_stream(self, node: fx.Node) -> bool:
        """Whether somebody reads the float32 stream itself: as residual, in a pool, in the head."""
        for user in node.users:
            a = self._arguments.get(user)
            if a is None or "in_scale" not in a or a.get("residual") is node:
                return True
        # More quantisers than a layer writes codes for: the rest are made of the stream.
        return len(self._pending.get(node, [])) > plan.MAX_CODE_OUTPUTS

    # Values and constants.

    def _new(self, kind: int, node: fx.Node, border: int = 0) -> int:
        shape = node.meta["val"].shape
        _, height, width, channels = shape if len(shape) == 4 else (1, 1, 1, shape[-1])
        self.plan.values.append(Value(kind, height, width, channels, border))
        return len(self.plan.values) - 1

    def _constant(self, node: fx.Node) -> Tensor | None:
        found = get_lifted_tensor_constant(self._program, node)
        if found is None and is_buffer(self._program, node):
            found = get_buffer(self._program, node)
        return found

    def _array(self, node: fx.Node) -> "np.ndarray[Any, Any]":
        constant = self._constant(node)
        if constant is None:
            raise ValueError(f"{node.name} must be a constant")
        return constant.detach().contiguous().numpy()

    def _key(self, node: fx.Node) -> int:
        """Index of the key under which a constant is shared: a hash of its bytes."""
        contents = self._array(node).tobytes()
        key = hashlib.sha256(contents).hexdigest()[: plan.KEY_BYTES]
        self.shared[key] = contents
        if key not in self.plan.keys:
            self.plan.keys.append(key)
        return self.plan.keys.index(key)

    def _floats(self, node: fx.Node) -> int:
        begin = sum(array.size for array in self.plan.floats)
        self.plan.floats.append(self._array(node).astype(np.float32).ravel())
        return begin

    # Layers.

    def _add(self, name: str, node: fx.Node) -> None:
        a = self._arguments[node]
        if name == "stem":
            layer = Layer(
                plan.STEM, self._values[a["image"]], weight=self._key(a["weight"]),
                second=self._key(a["pad_value"]), affine=self._floats(a["affine"]), relu=True,
                kernel=tuple(a["weight"].meta["val"].shape[1:3]), stride=a["stride"], pad=a["pad"],
            )  # fmt: skip
            self._write_stream(layer, node)
        elif name in ("conv2d_codes", "conv2d_stream", "depthwise_codes"):
            self._add_convolution(name, node)
        elif name == "max_pool" and not _is_stream(node):
            layer = Layer(plan.POOL_CODES, self._values[a["input"]], pool=_pool(a))
            self._write_codes(layer, node, 0, 255)
        elif name in ("max_pool", "fit_channels"):
            source = a["input"] if name == "max_pool" else a["stream"]
            pool = _pool(a) if name == "max_pool" else (0, 0, 0)
            self._write_stream(Layer(plan.FORK, self._values[source], pool=pool), node)
        else:
            streams = tuple(self._values[stream] for stream in a["streams"])
            layer = Layer(
                plan.HEAD, NONE, inputs=streams, weight=self._key(a["weight"]),
                second=self._key(a["bias"]), mean=name == "head",
                stream=self._new(plan.LOGITS, node), outputs=node.meta["val"].shape[-1],
            )  # fmt: skip
            self._values[node] = layer.stream
            self.plan.layers.append(layer)

    def _add_convolution(self, name: str, node: fx.Node) -> None:
        a = self._arguments[node]
        source = a["input"]
        layer = Layer(
            plan.DEPTHWISE if name == "depthwise_codes" else plan.CONV,
            NONE,
            branch=_branch(node),
            kernel=packing.kernel_size(self._array(a["weight"])),
            stride=a["stride"],
            pad=a["pad"],
            weight=self._key(a["weight"]),
            affine=self._floats(a["affine"]),
        )
        if _is_stream(source):
            form = (a["in_scale"], a["in_offset"], a["in_max"])
            layer.input, layer.highest = self._codes_of(source, form), form[2]
        else:
            layer.input = self._values[source]
            layer.highest = _highest(source, self._arguments)
        if name == "conv2d_stream":
            if a["residual"] is not None:
                layer.residual = self._values[a["residual"]]
            layer.relu = a["relu"]
            self._write_stream(layer, node)
        else:
            layer.direct = True
            self._write_codes(layer, node, a["qmin"], a["qmax"])

    def _codes_of(self, source: fx.Node, form: tuple[float, float, int]) -> int:
        """The codes that `form` makes of a stream; a fork makes those that its writer did not."""
        if (source, *form) not in self._quantised:
            fork = Layer(plan.FORK, self._values[source])
            fork.codes.append(self._quantise(source, form))
            fork.outputs = self.plan.values[fork.input].channels
            self.plan.layers.append(fork)
        return self._quantised[source, *form]

    def _quantise(self, source: fx.Node, form: tuple[float, float, int]) -> CodeOutput:
        scale, offset, highest = form
        value = self._new(plan.CODES, source, self._border(source, form))
        self._quantised[source, *form] = value
        return CodeOutput(value, scale, offset, 0, highest)

    def _write_stream(self, layer: Layer, node: fx.Node) -> None:
        layer.outputs = node.meta["val"].shape[-1]
        if self._needs_stream(node):
            layer.stream = self._values[node] = self._new(plan.STREAM, node)
        for form in self._pending.get(node, [])[: plan.MAX_CODE_OUTPUTS]:
            layer.codes.append(self._quantise(node, form))
        self.plan.layers.append(layer)

    def _write_codes(self, layer: Layer, node: fx.Node, lowest: int, highest: int) -> None:
        layer.outputs = node.meta["val"].shape[-1]
        value = self._values[node] = self._new(plan.CODES, node, self._border(node, None))
        layer.codes.append(CodeOutput(value, 1.0, 0.0, lowest, highest))
        self.plan.layers.append(layer)


def _arguments(name: str, node: fx.Node) -> Mapping[str, Any]:
    """Arguments of a call by their names in the schema."""
    names = [part.split()[-1] for part in ops.SCHEMAS[name].split(", ")]
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return {"residual": None, **given} if name == "conv2d_stream" else given


def _is_stream(node: fx.Node) -> bool:
    return bool(node.meta["val"].dtype == torch.float32)


def _pool(a: Mapping[str, Any]) -> tuple[int, int, int]:
    return a["kernel"], a["stride"], a["pad"]


def _highest(source: fx.Node, arguments: Mapping[fx.Node, Mapping[str, Any]]) -> int:
    """The largest code that an operator writes; a pool passes on what it reads."""
    a = arguments[source]
    return int(a["qmax"]) if "qmax" in a else _highest(a["input"], arguments)


def _branch(node: fx.Node) -> int:
    """Number of the branch, from the modules that the operator was traced in: `branches.1...`."""
    for path, _ in (node.meta.get("nn_module_stack") or {}).values():
        _, found, rest = str(path).rpartition("branches.")
        if found and rest.split(".")[0].isdigit():
            return int(rest.split(".")[0])
    return 0
