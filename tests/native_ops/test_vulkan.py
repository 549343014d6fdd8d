"""Model files on a GPU: the CPU's logits, one submit a frame, weights uploaded once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import native_ops
from export import integer, program
from native_ops import Program, _native

pytestmark = [pytest.mark.vulkan, pytest.mark.usefixtures("vulkan")]

MODELS = Path(__file__).parents[2] / "edge_app" / "assets" / "models"
HELDOUT = MODELS.parent / "digits-heldout.npz"
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network(random_network: Callable[..., integer.IntegerNetwork]) -> integer.IntegerNetwork:
    return random_network(5, widths=(12, 20))


@pytest.fixture(scope="module")
def model(network: integer.IntegerNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    height, width = network.input_size
    about = {
        "levels": {
            str(bits): {"branches": level.branches} for bits, level in network.levels.items()
        },
        "labels": network.labels,
        "input": {"height": height, "width": width},
    }
    path = tmp_path_factory.mktemp("models") / "model.pte"
    path.write_bytes(program.lower(network, about))
    return path


def test_every_level_gives_the_oracles_logits(
    product: str, network: integer.IntegerNetwork, model: Path
) -> None:
    with Program.open(model, device="vulkan") as opened:
        assert opened.device.startswith("vulkan:")
        shaders = {d.shader for bits in opened.levels for d in opened.dispatches(bits)}
        assert ("conv_packed" if product == "packed" else "conv") in shaders
        for bits in opened.levels:
            expected = integer.run(network, bits, IMAGES)
            actual = np.stack([opened.run(bits, image) for image in IMAGES])
            np.testing.assert_array_equal(actual, expected)
            assert len(np.unique(actual, axis=0)) > 1, "logits that ignore the image prove nothing"


def photographs(height: int, width: int) -> np.ndarray:
    """Pieces of real photographs, uint8 [N, height, width, 3]."""
    from sklearn.datasets import load_sample_images

    pieces = []
    for photograph in load_sample_images().images:
        for y in range(0, photograph.shape[0] - height, 160):
            pieces += [
                photograph[y : y + height, x : x + width]
                for x in range(0, photograph.shape[1] - width, 160)
            ]
    return np.stack(pieces)


def digits() -> np.ndarray:
    """Real handwriting, uint8 [N, 8, 8, 3]."""
    gray = np.load(HELDOUT)["gray"][:24]
    return np.repeat(gray[..., None], 3, axis=3)


@pytest.mark.slow
@pytest.mark.parametrize("conv", ["direct", "f2x2"])
@pytest.mark.parametrize("name", ["digits", "cifar10-resnet20"])
def test_models_give_the_cpus_logits_on_real_images(
    product: str, name: str, conv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_VULKAN_CONV", conv)
    with (
        Program.open(MODELS / f"{name}.pte") as cpu,
        Program.open(MODELS / f"{name}.pte", device="vulkan") as gpu,
    ):
        height, width, _ = cpu.input_shape
        images = digits() if name == "digits" else photographs(height, width)
        for bits in cpu.levels:
            expected = np.stack([cpu.run(bits, image) for image in images])
            actual = np.stack([gpu.run(bits, np.ascontiguousarray(image)) for image in images])
            np.testing.assert_array_equal(actual, expected)
            assert len(set(expected.argmax(1))) > 2
            winograd = any(d.shader.startswith("f2x2") for d in gpu.dispatches(bits))
            assert winograd == (conv == "f2x2" and bits <= 6)
            statistics = gpu.device_statistics(bits)
            assert statistics.submits == statistics.frames == len(images)


def test_a_frame_is_one_submit_and_weights_are_uploaded_once(
    network: integer.IntegerNetwork, model: Path
) -> None:
    with Program.open(model, device="vulkan") as opened:
        before = opened.device_statistics(8)
        assert (before.frames, before.submits) == (0, 0)
        for image in IMAGES:
            opened.run(8, image)
        after = opened.device_statistics(8)
        assert (after.frames, after.submits) == (8, 8)
        assert after.uploaded_bytes == before.uploaded_bytes, "something is uploaded in every frame"
        assert after.device_bytes == before.device_bytes, "something is allocated in every frame"
        assert after.host_microseconds > 0 and after.fence_microseconds > 0
        # Of all levels: each branch's weights once, which padding makes at most 256 bytes larger each.
        packed = program.pack_weights(network)
        most = packed.payload_bytes + 256 * (len(packed.blobs) + 4 * 8)
        affine = sum(
            2 * 4 * conv.outputs
            for level in network.levels.values()
            for _, _, conv in level.convolutions()
        )
        head = network.head.weight.nbytes + 4 * network.head.bias.nbytes
        stem = 4 * 8 * 64 * 4
        assert packed.payload_bytes < after.uploaded_bytes <= most + affine + head + stem
        with Program.open(model, device="vulkan") as again:
            twice = again.device_statistics(2).uploaded_bytes
            assert twice - after.uploaded_bytes < packed.payload_bytes, "weights came a second time"


def test_branches_run_side_by_side(model: Path) -> None:
    """A level of four branches waits as often as one of a branch, but for what branches share."""
    with Program.open(model, device="vulkan") as opened:
        waits = {bits: sum(d.waits for d in opened.dispatches(bits)) for bits in opened.levels}
        counts = {bits: len(opened.dispatches(bits)) for bits in opened.levels}
    assert counts[8] > 3 * counts[2] - 8
    assert waits[8] <= waits[2] + 1


def test_dispatches_ask_for_at_least_what_they_need(model: Path) -> None:
    with Program.open(model, device="vulkan") as opened:
        for dispatch in opened.dispatches(8):
            assert dispatch.invocations > 0
            assert dispatch.read_bytes + dispatch.written_bytes >= dispatch.least_bytes * 0.5, (
                dispatch
            )
            assert 0 < dispatch.written_bytes <= dispatch.least_bytes


def test_a_profile_has_every_layer(network: integer.IntegerNetwork, model: Path) -> None:
    with Program.open(model, device="vulkan") as opened:
        for bits, level in network.levels.items():
            expected = opened.run(bits, IMAGES[0])
            layers = opened.profile(bits, IMAGES[0])
            convolutions = [t for t in layers if t.layer.startswith("conv")]
            assert len(convolutions) == sum(1 for _ in level.convolutions())
            assert {t.branch for t in convolutions} == set(level.branches)
            assert all(t.microseconds > 0 and t.macs > 0 for t in convolutions)
            assert {t.kernel for t in layers} >= {"vulkan stem", "vulkan classify"}
            np.testing.assert_array_equal(opened.run(bits, IMAGES[0]), expected)


def test_etdump_of_a_gpu_holds_its_layers(model: Path) -> None:
    with Program.open(model, device="vulkan") as opened:
        assert b"conv3x3" in opened.trace(IMAGES[0])


def test_levels_alternate_and_threads_take_turns(model: Path) -> None:
    with Program.open(model) as cpu, Program.open(model, device="vulkan") as gpu:
        expected = {bits: [cpu.run(bits, image) for image in IMAGES] for bits in cpu.levels}
        wrong: list[int] = []

        def work(number: int) -> None:
            for bits in gpu.levels[number:] + gpu.levels[:number]:
                for image, logits in zip(IMAGES, expected[bits], strict=True):
                    if not np.array_equal(gpu.run(bits, image), logits):
                        wrong.append(bits)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_programs_on_the_cpu_have_no_device_numbers(model: Path) -> None:
    with Program.open(model) as opened:
        assert opened.device == "cpu"
        with pytest.raises(ValueError, match="runs on no device"):
            opened.device_statistics(2)
        with pytest.raises(ValueError, match="'tpu' is no device; choose cpu, auto, vulkan"):
            Program.open(model, device="tpu")
    with Program.open(model, device="vulkan") as opened, pytest.raises(ValueError, match="5 bits"):
        opened.dispatches(5)


def test_auto_takes_a_gpu_and_no_imitation(model: Path, vulkan: native_ops.Device) -> None:
    with Program.open(model, device="auto") as opened:
        gpus = [d for d in native_ops.vulkan_devices() if not (d.software or d.problem)]
        assert opened.device == (f"vulkan:{gpus[0].index}" if gpus else "cpu")
        assert vulkan.name in opened.device_reason or gpus


def test_shaders_are_valid(tmp_path: Path) -> None:
    shaders = _native.vulkan_shaders()
    assert set(shaders) == {
        "stem", "conv", "conv_packed", "f2x2", "f2x2_packed", "f2x2_weights", "depthwise", "stream",
        "pool", "average", "classify",
    }  # fmt: skip
    for name, code in shaders.items():
        path = tmp_path / f"{name}.spv"
        path.write_bytes(code)
        checked = subprocess.run(
            ["spirv-val", "--target-env", "vulkan1.1", path], capture_output=True, text=True
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, ""), name


def test_shaders_need_nothing_that_vulkan_1_1_may_lack() -> None:
    """No subgroups, no storage of bytes; the packed product only in shaders that have it in their name."""
    instruction_capability = 17
    shader, dot_product, packed_dot_product = 1, 6019, 6018
    for name, code in _native.vulkan_shaders().items():
        words = np.frombuffer(code, np.uint32)
        found, at = set(), 5
        while at < len(words):
            if words[at] & 0xFFFF == instruction_capability:
                found.add(int(words[at + 1]))
            at += int(words[at] >> 16)
        packed = {dot_product, packed_dot_product} if name.endswith("_packed") else set()
        assert found == {shader} | packed, name


KEEP = "import sys, native_ops; native_ops.Program.open(sys.argv[1], device='vulkan')"


def test_compiled_shaders_are_kept_for_each_driver(model: Path, tmp_path: Path) -> None:
    def start() -> list[Path]:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
        subprocess.run([sys.executable, "-c", KEEP, str(model)], env=environment, check=True)
        return list((tmp_path / "edge-app").iterdir())

    kept, choices = sorted(start())
    assert choices.name == kept.name + "-choices"
    driver, device, cache = kept.name.removeprefix("vulkan-").split("-")
    assert all(len(bytes.fromhex(part)) == 16 for part in (driver, device, cache))
    whole = kept.read_bytes()
    for damaged in (whole[:-1], whole[:10], b"", whole[:-1] + bytes([whole[-1] ^ 1]), whole + b"x"):
        kept.write_bytes(damaged)
        assert sorted(start()) == [kept, choices]
        assert kept.read_bytes()[:8] == whole[:8]
    assert len(kept.read_bytes()) == len(whole)


LAYERED = """
import sys
import numpy as np
import native_ops

for path in sys.argv[1:]:
    with native_ops.Program.open(path, device="vulkan") as program:
        image = np.full(program.input_shape, 77, np.uint8)
        for bits in program.levels:
            program.run(bits, image)
            program.run(bits, image)
            program.profile(bits, image)
        program.trace(image)
print("done")
"""


def validated(environment: dict[str, str], *models: Path) -> str:
    """What a run says with Khronos' validation layer in between, which has to be there."""
    done = subprocess.run(
        [sys.executable, "-c", LAYERED, *map(str, models)],
        env={
            **os.environ,
            **environment,
            "VK_INSTANCE_LAYERS": "VK_LAYER_KHRONOS_validation",
            "VK_LOADER_DEBUG": "layer",
        },
        capture_output=True,
        text=True,
    )
    assert re.search('Insert instance layer "?VK_LAYER_KHRONOS_validation', done.stderr), (
        "no validation layer: apt-get install vulkan-validationlayers"
    )
    return done.stdout


def test_validation_layers_have_nothing_to_say(product: str, model: Path, tmp_path: Path) -> None:
    # Without what others measured, so that measuring is seen too.
    said = validated({"XDG_CACHE_HOME": str(tmp_path)}, model, MODELS / "digits.pte")
    assert said == "done\n"


def test_validation_layers_would_find_a_mistake(faulty: dict[str, str], model: Path) -> None:
    said = validated({**faulty, "VULKAN_FAULT": "unreset"}, model)
    assert "VUID-vkQueueSubmit-fence" in said
