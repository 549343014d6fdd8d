"""What a model is measured against: one body of the same network, as XNNPACK runs it.

    python -m export.peers MODEL.pte -o FOLDER
    python -m export.peers NETWORK -o FOLDER [--size PIXELS]

`int8.pte` is the network that one would otherwise ship: full-precision weights, quantised to 8 bits
(per-channel, symmetric) by PyTorch's own tools and lowered to XNNPACK (Google). `fp32.pte` is the same
without quantisation. `peers.json` says what they are and is written last. For the name of a network,
`model.pte` is the multi-branch network itself. Weights are random: they take as long as trained ones.
`edge-app bench --peers` calls this, for the device's command line knows nothing of PyTorch.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from export.integer import IntegerNetwork

BITS = (2, 4, 6, 8)
_CALIBRATION_IMAGES = 2
_SMALL = ("resnet8", "resnet20")
"""Networks for 32 pixels and 10 classes; the others are for 224 pixels and 1,000 classes."""


class PeerError(Exception):
    """A comparison that cannot be built; says why and what to do."""


def build(target: str, folder: Path, size: int | None) -> None:
    """Write the programs into a folder that exists.

    Args:
        target: a model file, or the name of a network.
        size: height and width of the image, None for what is usual for the network; of a model file,
            they are known.

    Raises:
        PeerError: no such network or model, or XNNPACK does not take all of the network.
    """
    # All that is needed, before anything is computed.
    for package in ("torch", "torchao", "executorch.exir"):
        importlib.import_module(package)
    import torch

    from native_ops import ModelError, Program
    from train.networks import NETWORKS, PlainNet

    # Little is computed here, and threads that wait for each other are slow on a busy machine.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if target.endswith(".pte"):
        try:
            with Program.open(target) as program:
                name = str(program.metadata.get("network"))
                classes, (height, width, _) = len(program.labels), program.input_shape
        except ModelError as error:
            raise PeerError(str(error)) from None
        if name not in NETWORKS:
            raise PeerError(f"{target}: has the network '{name}', which is none of {_names()}")
    else:
        name = target
        if name not in NETWORKS:
            raise PeerError(f"no network '{name}'; choose from {_names()}")
        classes = 10 if name in _SMALL else 1000
        height = width = size or (32 if name in _SMALL else 224)
        _random_model(name, classes, height, folder / "model.pte")
    network = PlainNet(NETWORKS[name], classes).eval()
    image = torch.randn(1, 3, height, width).to(memory_format=torch.channels_last)
    for precision, quantised in (("fp32", False), ("int8", True)):
        (folder / f"{precision}.pte").write_bytes(xnnpack_program(network, image, quantised))
    about = {
        "network": name,
        "input": {"height": height, "width": width},
        "classes": classes,
        "macs": count_macs(network, image),
        "versions": {"torch": torch.__version__, "executorch": _executorch_version()},
    }
    (folder / "peers.json").write_text(json.dumps(about, indent=2) + "\n")


def _names() -> str:
    from train.networks import NETWORKS

    return ", ".join(NETWORKS)


def _executorch_version() -> str:
    from importlib.metadata import version

    return version("executorch")


def xnnpack_program(network: nn.Module, image: Tensor, quantised: bool) -> bytes:
    """The network as an ExecuTorch program that is one call of XNNPACK.

    Args:
        network: in evaluation mode.
        image: of the shape and the order of memory that the program will take.
        quantised: to 8 bits; otherwise float32.

    Raises:
        PeerError: XNNPACK leaves something to other, slower kernels, which were no fair comparison.
    """
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with torch.no_grad():
        exported = torch.export.export(network, (image,))
        if quantised:
            exported = torch.export.export(_quantised(exported.module(), image), (image,))
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    calls = [
        str(node.target)
        for node in lowered.exported_program().graph.nodes
        if node.op == "call_function" and "getitem" not in str(node.target)
    ]
    if len(calls) != 1 or "call_delegate" not in calls[0]:
        raise PeerError(f"XNNPACK does not take the whole network: {', '.join(calls)}")
    return bytes(lowered.to_executorch().buffer)


def _quantised(module: nn.Module, image: Tensor) -> nn.Module:
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(module, quantizer)
    for _ in range(_CALIBRATION_IMAGES):
        prepared(torch.randn_like(image))
    converted: nn.Module = convert_pt2e(prepared)
    return converted


def count_macs(network: nn.Module, image: Tensor) -> int:
    """Multiply-accumulates of all convolutions and linear layers for one image."""
    import torch
    from torch import nn

    counted = 0

    def count(layer: Any, _: Any, output: Tensor) -> None:
        nonlocal counted
        counted += output.numel() * layer.weight[0].numel()

    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        network(image)
    for hook in hooks:
        hook.remove()
    return counted


def random_network(name: str, classes: int, size: int) -> IntegerNetwork:
    """The multi-branch network with random weights and calibrated activations, as a device runs it.

    Its first layer has 8-bit weights, as XNNPACK's has.
    """
    import torch

    from export.folding import fold
    from train import methods
    from train.recipe import MethodRecipe, NetworkRecipe, Recipe

    recipe = Recipe(network=NetworkRecipe(name, stem_bits=8), method=MethodRecipe(bits=BITS))
    labels = tuple(str(label) for label in range(classes))
    net = methods.build(recipe, labels, (size, size), (120.0,) * 3, (60.0,) * 3)
    # What is calibrated does not depend on the size, and takes long on large images.
    shape = (_CALIBRATION_IMAGES, 3, min(size, 64), min(size, 64))
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    methods.calibrate(net, pixels, recipe.method.weight_sigmas)
    net.train()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the statistics of these images and no others
        for bits in net.bits:
            net(pixels, bits)
    return fold(net.eval())


def _random_model(name: str, classes: int, size: int, path: Path) -> None:
    from export.costs import level_cost
    from export.program import FORMAT, lower

    network = random_network(name, classes, size)
    levels = {}
    for bits, level in network.levels.items():
        cost = level_cost(network, bits)
        levels[str(bits)] = {
            "branches": list(level.branches),
            "macs": cost.macs,
            "bops": cost.bops,
        }
    about = {
        "format": FORMAT,
        "name": f"{name}-random",
        "network": name,
        "method": "random weights",
        "levels": levels,
        "labels": list(network.labels),
        "input": {"height": size, "width": size},
    }
    path.write_bytes(lower(network, about))


def _command(
    target: Annotated[str, typer.Argument(help="A model file (.pte) or the name of a network.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the programs.")],
    size: Annotated[
        int | None, typer.Option(min=8, help="Pixels of the image's sides, for a network's name.")
    ] = None,
) -> None:
    """Build the programs that a model or a network is measured against.

    Exit codes: 0 done; 1 the network cannot be lowered; 2 wrong usage, or PyTorch or ExecuTorch is
    not installed.
    """
    from export.__main__ import silence_dependencies

    silence_dependencies()
    code = 2
    try:
        output.mkdir(parents=True, exist_ok=True)
        build(target, output, size)
        return
    except ImportError as error:
        message = (
            f"building programs needs PyTorch and ExecuTorch, and '{error.name}' is not installed:"
            " pip install 'edge-app[server]'"
        )
    except PeerError as error:
        message = str(error)
        code = 1 if message.startswith("XNNPACK") else 2
    except OSError as error:
        message = f"{error.filename or output}: {error.strerror or error}"
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(_command)

if __name__ == "__main__":
    app(prog_name="python -m export.peers")
