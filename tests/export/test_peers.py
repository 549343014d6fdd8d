"""What models are measured against: it computes the network, all of it in XNNPACK, and takes its turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export import costs, peers, program
from native_ops import Program, container
from native_ops.peer import PeerError, PeerProgram, load_xnnpack
from train.networks import NETWORKS, PlainNet

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "edge_app/assets/schema/benchmark.schema.json"
SIDES = ["2 bits", "4 bits", "6 bits", "8 bits", "XNNPACK int8", "XNNPACK fp32"]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only lose by more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "120"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=900, env=environment
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of programs with those of one small network."""
    folder = tmp_path_factory.mktemp("programs")
    result = start("export.peers", "resnet8", "--size", 16, "-o", folder / "resnet8-16")
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    return folder


class Small(nn.Module):
    """A layer of each kind that the networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.shortcut = nn.Conv2d(8, 16, 1)
        self.classifier = nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.pool(self.norm(self.stem(image)).relu())
        x = (self.pointwise(self.depthwise(x).relu()) + self.shortcut(x)).relu()
        logits: Tensor = self.classifier(x.mean((2, 3), keepdim=True).flatten(1))
        return logits


@pytest.mark.parametrize(("quantised", "tolerance"), [(False, 1e-4), (True, 0.1)])
def test_programs_compute_the_network(quantised: bool, tolerance: float, tmp_path: Path) -> None:
    load_xnnpack(1)
    torch.manual_seed(1)
    network = Small().eval()
    image = torch.randn(1, 3, 20, 28).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = network(image).numpy().ravel()
    path = tmp_path / "peer.pte"
    path.write_bytes(peers.xnnpack_program(network, image, quantised))
    peer = PeerProgram.open(path)
    assert peer.input_shape == (1, 20, 28, 3), "channels last, as images lie in memory"
    found = peer.run(np.ascontiguousarray(image.permute(0, 2, 3, 1).numpy()))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def test_a_program_refuses_other_input(built: Path) -> None:
    load_xnnpack(1)
    peer = PeerProgram.open(built / "resnet8-16/int8.pte")
    with pytest.raises(ValueError, match=r"takes float32 of shape \(1, 16, 16, 3\)"):
        peer.run(np.zeros((1, 3, 16, 16), np.float32))
    with pytest.raises(ValueError, match="got uint8"):
        peer.run(np.zeros((1, 16, 16, 3), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(PeerError, match="absent"):
        PeerProgram.open(built / "absent.pte")
    damaged = built / "damaged.pte"
    damaged.write_bytes((built / "resnet8-16/int8.pte").read_bytes()[:2000])
    with pytest.raises(PeerError, match=r"damaged\.pte: the program does not load"):
        PeerProgram.open(damaged)


class Unusual(nn.Module):
    """Has a layer that XNNPACK has not."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cumsum(image, 2).relu()


def test_a_network_that_xnnpack_takes_in_part_is_refused() -> None:
    with pytest.raises(peers.PeerError, match="does not take the whole network: .*cumsum"):
        peers.xnnpack_program(Unusual(), torch.zeros(1, 3, 8, 8), False)


def test_the_other_side_has_the_size_of_one_branch(built: Path) -> None:
    network = PlainNet(NETWORKS["resnet20"], 10)
    weights = sum(
        m.weight.numel() for m in network.body.modules() if isinstance(m, torch.nn.Conv2d)
    )
    assert weights == 269_824, "as many as one branch of the multi-branch network"
    random = peers.random_network("resnet8", 10, 16)
    assert random.levels[2].branches == (1,)
    about = json.loads((built / "resnet8-16/peers.json").read_text())
    assert about["macs"] == costs.level_cost(random, 2).macs
    with Program.open(built / "resnet8-16/model.pte") as model:
        assert model.levels == peers.BITS
        logits = {bits: model.run(bits, np.full((16, 16, 3), 77, np.uint8)) for bits in peers.BITS}
    assert all(np.isfinite(values).all() and np.ptp(values) > 0 for values in logits.values())


@pytest.mark.parametrize("target", ["resnet0", "absent.pte"])
def test_what_is_not_there_is_refused(target: str, tmp_path: Path) -> None:
    result = start("export.peers", target, "-o", tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"{target}" in result.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_all_sides_are_measured_in_turn(built: Path, tmp_path: Path) -> None:
    """Through the device's command line."""
    arguments: list[Any] = ["bench", "--network", "resnet8", "--size", 16, "--peers"]
    arguments += ["--programs", built, "--rounds", 3]
    result = start(
        "edge_app", *arguments, "--json", tmp_path / "r.json", "--plot", tmp_path / "r.png"
    )
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(report)
    [network] = report["networks"]
    rows = {row["side"]: row for row in network["sides"]}
    assert list(rows) == SIDES
    assert rows["XNNPACK int8"]["ratio_to_int8"] == rows["XNNPACK int8"]["ratio_of_minima"] == 1
    assert rows["XNNPACK int8"]["macs"] == rows["2 bits"]["macs"]
    assert rows["XNNPACK fp32"]["roofline_percent"] is None
    assert all(row["resident_bytes"] > 10_000 for row in rows.values())
    assert all(name in result.stdout for name in SIDES)
    assert (tmp_path / "r.png").stat().st_size > 1000


def test_a_model_without_the_engine_is_pointed_out(tmp_path: Path) -> None:
    network = peers.random_network("resnet8", 10, 16)
    about = {
        "levels": {"2": {"branches": [1]}},
        "labels": network.labels,
        "input": {"height": 16, "width": 16},
    }
    lowered = program.lower_modules(
        {"bits2": program.LevelModule(network, 2, program.pack_weights(network))},
        network.input_size,
        {"edge_format": program.FORMAT, "edge_metadata": json.dumps(about)},
        delegate=False,
    )
    path = tmp_path / "operators.pte"
    path.write_bytes(container.seal(lowered))
    result = start("edge_app", "bench", path, "--rounds", 1)
    assert result.returncode == 0 and "2 bits" in result.stdout
    assert "operators.pte: runs operator by operator on reference kernels" in result.stderr
    result = start("edge_app", "bench", path, "--rounds", 1, "--layers")
    assert (result.returncode, result.stdout) == (2, "")
    assert "has no profile of its layers" in result.stderr.splitlines()[-1]


def test_bench_says_which_networks_there_are() -> None:
    result = start("edge_app", "bench", "--network", "resnet0", "--rounds", 1)
    assert (result.returncode, result.stdout) == (2, "")
    assert "no network 'resnet0'; choose from resnet8, resnet20" in result.stderr.splitlines()[-1]


THREADS = """
import os, sys
import numpy as np
from native_ops.peer import PeerError, PeerProgram, load_xnnpack

def names():
    return set(os.listdir("/proc/self/task"))

before = names()
load_xnnpack(int(sys.argv[2]))
program = PeerProgram.open(sys.argv[1])
program.run(np.zeros(program.input_shape, np.float32))
print(len(names() - before))
try:
    load_xnnpack(int(sys.argv[2]) + 1)
except PeerError as error:
    print(error)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_as_many_as_were_asked_for(built: Path, threads: int) -> None:
    path = built / "resnet8-16/int8.pte"
    command = [sys.executable, "-c", THREADS, str(path), str(threads)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    started, refusal = result.stdout.splitlines()
    assert int(started) == threads - 1, "the caller is one of them"
    assert refusal == "XNNPACK already runs on another number of threads"
