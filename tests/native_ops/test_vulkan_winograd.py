"""F(2x2,3x3) on a GPU against the oracle, bit for bit, and how it is chosen beside the direct convolution."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from vulkan_plans import Maker, differences, level_of

from native_ops import Program

pytestmark = [pytest.mark.vulkan, pytest.mark.usefixtures("vulkan")]

MODELS = Path(__file__).parents[2] / "edge_app" / "assets" / "models"

FORMS = ("direct", "stream", "codes", "both", "all")
CHANNELS = (1, 2, 3, 4, 5, 12, 16, 17, 31, 64, 65, 130)
TILES = ("f2x2-16x8", "f2x2-8x8", "f2x2-4x4")
LEVELS = (3, 7, 15, 31, 63)
"""The highest codes of 2 to 6 bits."""


@pytest.fixture(params=TILES)
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """All tiles, whichever is the fastest here."""
    monkeypatch.setenv("EDGE_VULKAN_CONV", request.param)
    yield request.param


def shader_of(maker: Maker) -> str:
    """What runs the only convolution."""
    (conv,) = (d for d in level_of(maker.built).dispatches() if d.tile)
    return f"{conv.shader} {conv.tile}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_every_shape(product: str, tile: str, seed: int) -> None:
    """Maps from 1x1 on, odd and even, one and several tiles; channels that fill no word and no block."""
    random = np.random.default_rng([seed, 22])
    height, width = int(random.integers(1, 15)), int(random.integers(1, 15))
    inputs, outputs = (int(n) for n in random.choice(CHANNELS, 2))
    highest, pad = LEVELS[seed % len(LEVELS)], seed % 3
    height, width = max(height, 3 - 2 * pad), max(width, 3 - 2 * pad)
    maker = Maker(seed, height, width)
    stream, codes = maker.stem(inputs, 1, 1, 0, (highest,), pad)
    values = maker.convolution(codes, outputs, (3, 3), 1, pad, highest, FORMS[seed % len(FORMS)])
    logits = maker.head([stream], 5, True)
    assert differences(maker.built, [stream, codes, *values], logits) == []
    if outputs > 4 or tile == "f2x2-4x4":
        name, pixels = tile.split("-")
        assert shader_of(maker) == f"{name}{'_packed' if product == 'packed' else ''} {pixels}"


@pytest.mark.parametrize("highest", LEVELS)
def test_every_level(product: str, highest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VULKAN_CONV", "f2x2")
    maker = Maker(highest, 7, 10)
    stream, codes = maker.stem(24, 3, 1, 1, (highest,), 1)
    added, _ = maker.stem(20, 3, 1, 1, (15,), 0)
    values = maker.convolution(codes, 20, (3, 3), 1, 1, highest, "all", residual=added)
    logits = maker.head([stream], 5, True)
    assert differences(maker.built, [added, *values], logits) == []
    assert shader_of(maker).startswith("f2x2")


# Pixels and taps that drive transformed codes and weights to their bounds, where they match.
PIXELS = {
    "all": lambda y, x: y >= 0,
    "none": lambda y, x: y < 0,
    "columns": lambda y, x: x % 2 == 0,
    "pairs of columns": lambda y, x: x // 2 % 2 == 0,
    "rows": lambda y, x: y % 2 == 0,
    "pairs of rows": lambda y, x: y // 2 % 2 == 0,
    "checkers": lambda y, x: (x + y) % 2 == 0,
    "pairs of both": lambda y, x: (x // 2 + y // 2) % 2 == 0,
}


@pytest.mark.parametrize("highest", [3, 15, 63])
@pytest.mark.parametrize("pixels", PIXELS)
def test_the_largest_sums(
    product: str, pixels: str, highest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only 0 and the highest code, only weights of -3 and 3: what 16-bit halves have to hold in a word, and
    32 bits over 512 channels."""
    monkeypatch.setenv("EDGE_VULKAN_CONV", "f2x2")
    maker = Maker(highest, 6, 9)
    y, x = np.indices((6, 9))
    stream, codes = maker.pattern(PIXELS[pixels](y, x), 512, highest)
    ky, kx = np.indices((3, 3))
    values = []
    for taps in PIXELS.values():
        for sign in (1, -1):
            weight = np.where(taps(ky, kx), sign, -sign) * 3
            values += maker.convolution(
                codes,
                4,
                (3, 3),
                1,
                1,
                highest,
                "stream",
                weight_codes=(weight[:, :, None] + 3) // 2,
            )
    logits = maker.head([stream], 5, True)
    assert differences(maker.built, [codes, *values], logits) == []


def test_more_bits_and_other_kernels_stay_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VULKAN_CONV", "f2x2")
    for highest, kernel, stride in ((127, (3, 3), 1), (255, (3, 3), 1), (63, (3, 3), 2),
                                    (63, (1, 1), 1), (63, (5, 5), 1), (63, (3, 1), 1)):  # fmt: skip
        maker = Maker(highest, 9, 9)
        stream, codes = maker.stem(8, 1, 1, 0, (highest,), 1)
        maker.convolution(codes, 8, kernel, stride, 1, highest, "direct")
        maker.head([stream], 5, True)
        assert shader_of(maker).startswith("conv")


def test_it_multiplies_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for name in ("direct", "f2x2"):
        monkeypatch.setenv("EDGE_VULKAN_CONV", name)
        maker = Maker(0, 8, 8)
        stream, codes = maker.stem(16, 1, 1, 0, (63,), 1)
        maker.convolution(codes, 16, (3, 3), 1, 1, 63, "direct")
        maker.head([stream], 5, True)
        (found[name],) = (d for d in level_of(maker.built).dispatches() if d.tile)
    assert found["direct"].multiplications == 8 * 8 * 9 * 16 * 16
    assert found["f2x2"].multiplications * 9 == found["direct"].multiplications * 4
    assert found["f2x2"].least_bytes > found["direct"].least_bytes


def test_transformed_weights_are_made_once_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    path = MODELS / "digits.pte"
    held, uploaded = {}, {}
    for name in ("direct", "f2x2"):
        monkeypatch.setenv("EDGE_VULKAN_CONV", name)
        with Program.open(path, device="vulkan") as program:
            image = np.zeros(program.input_shape, np.uint8)
            statistics = program.device_statistics(2)
            held[name], uploaded[name] = statistics.device_bytes, statistics.uploaded_bytes
            branches = program.metadata["levels"]
            bytes_of: dict[int, int] = {}
            for bits in program.levels:
                for layer in program.profile(bits, image):
                    if layer.kernel.startswith("vulkan f2x2"):
                        bytes_of[layer.branch] = bytes_of.get(layer.branch, 0) + layer.weight_bytes
            if name == "f2x2":
                # 4 and 6 bits share branches 2 and 3.
                times = {
                    b: sum(b in branches[str(n)]["branches"] for n in (2, 4, 6)) for b in bytes_of
                }
                assert max(times.values()) == 2
                once = sum(total // times[branch] for branch, total in bytes_of.items())
                assert once > 100_000
    assert uploaded["direct"] == uploaded["f2x2"], "transformed weights were uploaded"
    assert held["f2x2"] == held["direct"] + once, "made twice, or not counted"


def test_low_memory_keeps_weights_packed() -> None:
    with Program.open(MODELS / "digits.pte", device="vulkan", low_memory=True) as program:
        shaders = {d.shader for bits in program.levels for d in program.dispatches(bits)}
    assert not any(shader.startswith("f2x2") for shader in shaders)


CHOICES = """
import sys
import numpy as np
import native_ops

with native_ops.Program.open(sys.argv[1]) as cpu:
    with native_ops.Program.open(sys.argv[1], device="vulkan") as gpu:
        for bits in gpu.levels:
            image = np.full(cpu.input_shape, 10 * bits, np.uint8)
            assert np.array_equal(cpu.run(bits, image), gpu.run(bits, image)), bits
            for dispatch in gpu.dispatches(bits):
                if dispatch.tile:
                    size = dispatch.layer.split()[0]
                    print(bits, size, dispatch.shader, dispatch.tile, dispatch.chosen, sep="|")
        print(gpu.device_reason)
"""


def choices(cache: Path, environment: dict[str, str] | None = None) -> tuple[list[list[str]], str]:
    """What a new process chooses: bits, kernel, shader, tile and why, of each convolution; and why the
    device."""
    done = subprocess.run(
        [sys.executable, "-c", CHOICES, str(MODELS / "digits.pte")],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), **(environment or {})},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *lines, reason = done.stdout.splitlines()
    return [line.split("|") for line in lines], reason


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    first, _ = choices(tmp_path)
    assert {why for *_, why in first} == {"measured"}
    assert {bits for bits, *_ in first} == {"2", "4", "6", "8"}
    (kept,) = (tmp_path / "edge-app").glob("vulkan-*-choices")
    whole = kept.read_bytes()
    again, _ = choices(tmp_path)
    assert {why for *_, why in again} == {"measured earlier"}
    assert [line[:4] for line in again] == [line[:4] for line in first]
    assert kept.read_bytes() == whole
    for damaged in (whole[:-1], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        kept.write_bytes(damaged)
        once_more, _ = choices(tmp_path)
        assert {why for *_, why in once_more} == {"measured"}


@pytest.mark.parametrize(
    ("number", "shader", "tile"), [(0, "conv", "4x8"), (2, "conv", "2x4"), (4, "f2x2", "8x8")]
)
def test_the_fastest_by_the_devices_clock_is_taken(
    faulty: dict[str, str], tmp_path: Path, number: int, shader: str, tile: str
) -> None:
    environment = {"EDGE_VULKAN_PRODUCT": "plain", "VULKAN_FAULT": f"sixth:{number}"}
    found, _ = choices(tmp_path, {**faulty, "EDGE_VULKAN_CONV": "", **environment})
    taken = {tuple(line[2:]) for line in found if line[1] == "conv3x3" and line[0] != "8"}
    assert taken == {(shader, tile, "measured")}


def test_what_others_measured_is_kept_too(tmp_path: Path) -> None:
    """Both ways to multiply, one after the other, in one file."""
    for product in ("plain", "packed", "plain"):
        found, _ = choices(tmp_path, {"EDGE_VULKAN_PRODUCT": product})
    assert {why for *_, why in found} == {"measured earlier"}


@pytest.mark.parametrize(
    ("fault", "why", "said"),
    [
        ("clockless", "no clock to measure with", "without a clock its convolutions stay direct"),
        ("timeless", "no times from the clock", "asked for"),
    ],
)
def test_without_a_clock_convolutions_stay_direct(
    faulty: dict[str, str], tmp_path: Path, fault: str, why: str, said: str
) -> None:
    environment = {**faulty, "EDGE_VULKAN_CONV": "", "VULKAN_FAULT": fault}
    found, reason = choices(tmp_path, environment)
    assert {line[-1] for line in found} == {why}
    assert all(shader.startswith("conv") for _, _, shader, _, _ in found)
    assert said in reason
    assert not list((tmp_path / "edge-app").glob("*-choices"))


def test_without_memory_for_it_convolutions_stay_direct(
    faulty: dict[str, str], tmp_path: Path
) -> None:
    """One allocation after the other fails: either there is no level, or it gives the CPU's logits."""
    reasons, refused = set(), 0
    for number in range(1, 40, 3):
        environment = {**faulty, "EDGE_VULKAN_CONV": "f2x2", "VULKAN_FAULT": f"tight:{number}"}
        try:
            found, _ = choices(tmp_path, environment)
        except AssertionError as error:
            assert "out of device memory" in str(error)
            refused += 1
        else:
            reasons |= {why for *_, why in found}
    assert refused
    assert reasons == {"asked for", "no memory for f2x2"}


@pytest.mark.parametrize("fault", ["lost:6", "hang:6"])
def test_a_device_that_is_lost_while_it_is_measured(
    faulty: dict[str, str], tmp_path: Path, fault: str
) -> None:
    environment = {**faulty, "EDGE_VULKAN_CONV": "", "VULKAN_FAULT": fault}
    with pytest.raises(AssertionError, match="DeviceError"):
        choices(tmp_path, environment)
    assert not list((tmp_path / "edge-app").glob("*-choices"))


def test_a_wrong_name_is_told_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as failed:
        choices(tmp_path, {"EDGE_VULKAN_CONV": "f4x4"})
    assert re.search("'f4x4' is none of direct, f2x2, direct-4x8, .*, f2x2-4x4", str(failed.value))
