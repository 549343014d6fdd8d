"""Lowering: only our operators, one call of the engine, constants shared and aligned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.exir.schema import DelegateCall, KernelCall, Program

from export import delegate, folding, integer, ops, packing, program
from native_ops import container
from train.branches import MultiBranchNet

Maker = Callable[..., integer.IntegerNetwork]
IMAGES = np.random.default_rng(5).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network(random_network: Maker) -> integer.IntegerNetwork:
    return random_network(11, widths=(12, 20))


@pytest.fixture(scope="module")
def lowered(network: integer.IntegerNetwork) -> bytes:
    return bytes(container.verify(program.lower(network, {"name": "random", "note": "ü"})))


@pytest.fixture(scope="module")
def parsed(lowered: bytes) -> Program:
    return deserialize_pte_binary(lowered).program


def _methods(parsed: Program) -> dict[str, Any]:
    return {plan.name: plan for plan in parsed.execution_plan}


def test_methods_are_the_levels_and_the_metadata(parsed: Program) -> None:
    plans = _methods(parsed)
    assert sorted(plans) == ["bits2", "bits4", "bits6", "bits8", "edge_format", "edge_metadata"]
    values = [plans[name].values[plans[name].outputs[0]].val for name in sorted(plans)[4:]]
    assert values[0].int_val == program.FORMAT
    assert values[1].string_val == '{"name": "random", "note": "\\u00fc"}'


def test_a_level_is_one_call_of_the_engine(
    parsed: Program, network: integer.IntegerNetwork
) -> None:
    for bits in network.levels:
        plan = _methods(parsed)[f"bits{bits}"]
        (instruction,) = plan.chains[0].instructions
        assert isinstance(instruction.instr_args, DelegateCall)
        assert [made.id for made in plan.delegates] == [delegate.BACKEND]
        assert not plan.operators


def test_without_a_delegate_every_layer_is_an_operator(network: integer.IntegerNetwork) -> None:
    packed = program.pack_weights(network)
    modules = {f"bits{bits}": program.LevelModule(network, bits, packed) for bits in network.levels}
    lowered = program.lower_modules(modules, network.input_size, {}, delegate=False)
    plans = _methods(deserialize_pte_binary(lowered).program)
    for bits, level in network.levels.items():
        plan = plans[f"bits{bits}"]
        names = [f"{operator.name}.{operator.overload}" for operator in plan.operators]
        called = []
        for instruction in plan.chains[0].instructions:
            assert isinstance(instruction.instr_args, KernelCall)
            called.append(names[instruction.instr_args.op_index])
        blocks = sum(len(blocks) for blocks in level.bodies)
        convolutions = sum(1 for _ in level.convolutions())
        assert called.count("mbq::stem.out") == called.count("mbq::head.out") == 1
        assert called.count("mbq::conv2d_codes.out") == blocks
        assert called.count("mbq::conv2d_stream.out") == convolutions - blocks
        assert len(called) == convolutions + 2
        assert not plan.delegates


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_traced_modules_compute_what_the_oracle_does(
    network: integer.IntegerNetwork, bits: int
) -> None:
    module = program.LevelModule(network, bits, program.pack_weights(network))
    with torch.no_grad():
        found = [module(torch.from_numpy(image[None]))[0].numpy() for image in IMAGES]
    np.testing.assert_allclose(found, integer.run(network, bits, IMAGES), rtol=1e-5, atol=1e-5)


def test_a_level_over_the_same_branches_adds_no_weights(random_network: Maker) -> None:
    def size(selection: dict[int, tuple[int, ...]]) -> tuple[int, int]:
        made = random_network(3, widths=(64, 128), selection=selection)
        packed = program.pack_weights(made)
        return len(program.lower(made, {})), packed.payload_bytes

    alone, weights = size({4: (1, 2)})
    both, same_weights = size({4: (1, 2), 6: (1, 2)})
    assert same_weights == weights
    affine_bytes = 2 * 8 * (64 + 64 + 128 + 128 + 128)
    assert both - alone < affine_bytes + 6000 < weights / 4


@pytest.mark.slow
def test_resnet20_takes_its_published_size_and_64_kb() -> None:
    """Four levels: weights and scales of 0.34 MB by the published formula, the program around them."""
    bits = (2, 4, 6, 8)
    net = MultiBranchNet("resnet20", tuple("abcdefghij"), (32, 32), bits, (120.0,) * 3, (60.0,) * 3)
    folded = folding.fold(net)
    # Metadata of the usual length; random initialisation leaves every norm the same, which training
    # does not: their bytes count whether or not the file shares them.
    random = np.random.default_rng(0)
    for level in folded.levels.values():
        for _, _, conv in level.convolutions():
            conv.scale[:] = random.normal(1, 0.1, conv.scale.shape)
            conv.bias[:] = random.normal(0, 0.1, conv.bias.shape)
    contents = program.lower(folded, {"text": "x" * 2000})
    packed = program.pack_weights(folded)
    assert packed.payload_bytes == 269_824
    assert 337_960 < len(contents) < 337_960 + 64 * 1024


def test_shared_constants_are_aligned(lowered: bytes, network: integer.IntegerNetwork) -> None:
    blobs = [blob.numpy().tobytes() for blob in program.pack_weights(network).blobs.values()]
    assert [lowered.index(blob) % 64 for blob in blobs] == [0] * len(blobs)


def test_packed_weights_are_in_the_file_once(
    lowered: bytes, network: integer.IntegerNetwork
) -> None:
    blobs = program.pack_weights(network).blobs.values()
    assert [lowered.count(blob.numpy().tobytes()) for blob in blobs] == [1] * len(blobs)


class _WithForeignOperator(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.inner(image))


class _Convolution(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image.permute(0, 3, 1, 2).float())


def test_other_operators_are_refused_by_name(network: integer.IntegerNetwork) -> None:
    good = program.LevelModule(network, 2, program.pack_weights(network))
    modules = {"bits2": good, "bits4": _WithForeignOperator(good), "bits6": _Convolution()}
    with pytest.raises(program.ExportError) as caught:
        program.lower_modules(modules, (8, 8), {})
    message = str(caught.value)
    assert "bits2" not in message
    assert "bits4: node 'aten_relu_default' calls aten::relu" in message
    assert "bits6: node 'aten_convolution_default' calls aten::convolution" in message


def test_a_network_that_fails_its_check_is_not_lowered(random_network: Maker) -> None:
    broken = random_network(1, selection={2: (1,)})
    broken.head.bias[0] = np.nan
    with pytest.raises(integer.IntegerNetworkError, match="head"):
        program.lower(broken, {})


def _convolution_arguments(side: int, inputs: int, outputs: int, floats: bool) -> list[Any]:
    random = np.random.default_rng(side + inputs)
    codes = random.integers(0, 4, (outputs, side, side, inputs), dtype=np.uint8)
    x = torch.rand(1, 6, 5, inputs) if floats else torch.zeros(1, 6, 5, inputs, dtype=torch.uint8)
    blob = torch.from_numpy(packing.pack(codes))
    return [x, 3.0, 0.0, 15, blob, torch.rand(2, outputs)]


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize(
    ("side", "inputs", "outputs", "stride"), [(3, 5, 20, 1), (3, 8, 16, 2), (1, 7, 3, 2)]
)
def test_planned_shapes_are_those_that_come_out(
    side: int, inputs: int, outputs: int, stride: int, floats: bool
) -> None:
    """What tracing believes (and plans memory for) against the implementation."""
    arguments = _convolution_arguments(side, inputs, outputs, floats)
    pad = side // 2
    checks = ("test_schema", "test_faketensor")
    codes = [*arguments, stride, pad, 0, 15]
    torch.library.opcheck(torch.ops.mbq.conv2d_codes.default, codes, test_utils=checks)
    residual = torch.rand_like(torch.ops.mbq.conv2d_codes(*codes).float())
    stream = [*arguments, residual, stride, pad, True]
    torch.library.opcheck(torch.ops.mbq.conv2d_stream.default, stream, test_utils=checks)
    out = torch.empty_like(residual)
    torch.ops.mbq.conv2d_stream.out(*stream, out=out)
    assert torch.equal(out, torch.ops.mbq.conv2d_stream(*stream))


def test_a_weight_that_does_not_fit_stops_tracing() -> None:
    arguments = _convolution_arguments(3, 8, 16, False)
    arguments[4] = arguments[4][:-1]
    with pytest.raises(ValueError, match="does not hold a square kernel for 8 input and 16 output"):
        ops._fake_conv2d_codes(*arguments, 1, 1, 0, 3)
    arguments = _convolution_arguments(3, 8, 16, False)
    with pytest.raises(ValueError, match="differ in shape"):
        ops._fake_conv2d_stream(*arguments, torch.zeros(1, 6, 5, 8), 1, 1, True)


def test_files_are_written_beside_their_place(tmp_path: Any) -> None:
    target = tmp_path / "model.pte"
    target.write_bytes(b"before")
    beside = program.write_beside(target, b"after")
    assert beside.parent == tmp_path and beside != target
    assert (target.read_bytes(), beside.read_bytes()) == (b"before", b"after")
    assert beside.stat().st_mode & 0o777 == 0o644
