"""One export, from the run folder to a verified file with its name."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from safetensors import SafetensorError

from export import report
from export.costs import storage_bytes
from export.folding import fold
from export.integer import IntegerNetwork
from export.program import ExportError, Packed, lower, pack_weights, write_beside
from export.verification import (
    LevelAccuracy,
    VerificationError,
    classify_program,
    classify_trained,
    compare_accuracy,
    compare_with_oracle,
    require_equal_accuracy,
)
from native_ops import Program
from native_ops.devices import choose
from train import LoadedRun, load_run
from train.data import Dataset, load_dataset
from train.images import Images
from train.recipe import RecipeError

TARGETS = ("cpu", "vulkan")
ORACLE_IMAGES = 64
"""Images of the test set, evenly spread, whose logits are compared with the oracle's."""
OVERHEAD_BYTES = 64 * 1024
"""Most that a file of up to 200 convolution calls may hold besides its parameters."""
_OVERHEAD_CALLS = 200


class UsageError(ValueError):
    """Input that the user has to change; says where, what and what to do."""


def build(
    run_directory: Path,
    output: Path,
    name: str,
    data: Path | None,
    terminal: Console,
    target: str = "cpu",
    most: int = 0,
) -> None:
    """Export one run, verify the file, print what came out to stdout.

    Args:
        name: of the model; empty for the recipe's.
        data: folder of the data set, None for the recipe's.
        terminal: for progress.
        target: a device of `Program.open`, on which the file is verified besides the CPU. The file is
            the same for all.
        most: test images, evenly spread, that accuracies are measured on; 0 for all.

    Raises:
        UsageError, RecipeError: no finished run, no test set, no place for the file, or no such target.
        DeviceError: the target is not to be had on this machine.
        ExportError, IntegerNetworkError, ModelError, VerificationError: no good file came out.
    """
    if target not in TARGETS:
        raise UsageError(f"--target {target}: choose {' or '.join(TARGETS)}")
    if target != "cpu":
        choose(target)  # before minutes of work
    if not output.parent.is_dir() or output.is_dir():
        raise UsageError(f"{output}: needs a file name in a folder that exists; change --output")
    run = _load(run_directory)
    whole = _test_set(run, data)
    dataset = whole.sample(most) if most else whole
    images, name = len(dataset), name or run.recipe.name
    network = fold(run.network)
    packed = pack_weights(network)

    def contents(accuracies: tuple[LevelAccuracy, ...]) -> bytes:
        about = report.metadata(name, run, network, whole, images, packed.payload_bytes, accuracies)
        return lower(network, about)

    with _progress(terminal) as stage:
        trained = classify_trained(run.network, dataset, stage("trained network", images))
        done = stage("lowering", 2)
        with _written_beside(output, contents(())) as draft, Program.open(draft) as program:
            done(1)
            chosen = dataset.sample(ORACLE_IMAGES).images
            compare_with_oracle(program, network, chosen, stage("oracle", len(chosen)))
            classes = classify_program(program, dataset, stage("model file", images))
        accuracies = compare_accuracy(network, dataset.labels, trained, classes)
        require_equal_accuracy(accuracies, images)
        final = contents(accuracies)
        done(1)
        _require_small(network, packed, len(final))
        # The metadata have changed since the measurement: what gets the name is verified itself.
        with _written_beside(output, final) as beside:
            with Program.open(beside) as program:
                compare_with_oracle(program, network, chosen, stage("oracle again", len(chosen)))
            where = "" if target == "cpu" else _verify_on(target, beside, network, chosen, stage)
            os.replace(beside, output)
    out = Console(highlight=False)
    out.print(report.level_table(network, accuracies, report.measured_on(whole, images)))
    out.print(report.size_table(network, packed, len(final)))
    out.print(
        f"{output}: verified, logits of {len(chosen)} images at every level are the oracle's{where}",
        soft_wrap=True,
        markup=False,
    )


def _verify_on(
    target: str,
    path: Path,
    network: IntegerNetwork,
    images: Images,
    stage: Callable[[str, int], Callable[[int], None]],
) -> str:
    """Compare the file's logits on a device with the oracle's; says which device that was."""
    with Program.open(path, device=target) as program:
        found = f", also on {program.device} ({program.device_reason.removesuffix(', asked for')})"
        compare_with_oracle(program, network, images, stage(f"oracle on {target}", len(images)))
        if program.device == "cpu":
            raise VerificationError(f"{target}: {program.device_reason}")
    return found


def _load(directory: Path) -> LoadedRun:
    try:
        return load_run(directory)
    except RecipeError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        # What the file formats and PyTorch raise for a damaged folder, often on many lines.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"{directory}: is damaged ({reason}); train it again") from error


def _test_set(run: LoadedRun, root: Path | None) -> Dataset:
    recipe = run.recipe.data
    if root is not None:
        recipe = dataclasses.replace(recipe, root=str(root))
    try:
        dataset = load_dataset(recipe, "test")
    except RecipeError as error:
        raise UsageError(f"test set of {run.path}: {error}; or give --data FOLDER") from error
    expected = tuple(run.network.input_size)
    if dataset.classes != tuple(run.network.labels) or dataset.input_size != expected:
        raise UsageError(
            f"test set {dataset.name}: {len(dataset.classes)} classes of {dataset.input_size}"
            f" pixels are not what {run.path} was trained on; give its own data with --data"
        )
    return dataset


def _require_small(network: IntegerNetwork, packed: Packed, file_bytes: int) -> None:
    calls = sum(1 for level in network.levels.values() for _ in level.convolutions())
    allowed = max(OVERHEAD_BYTES, OVERHEAD_BYTES * calls // _OVERHEAD_CALLS)
    overhead = file_bytes - storage_bytes(network) - packed.repeated_bytes
    if overhead > allowed:
        raise ExportError(
            f"the program takes {overhead:,} bytes besides its parameters, more than {allowed:,}:"
            " levels no longer share their weights, or constants are stored twice"
        )


@contextmanager
def _written_beside(output: Path, contents: bytes) -> Iterator[Path]:
    """Contents in a new file beside output, which is gone afterwards unless it was renamed."""
    path = write_beside(output, contents)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """A function that starts a stage of so many steps and returns one that reports steps done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:

        def stage(description: str, total: int) -> Callable[[int], None]:
            task = progress.add_task(description, total=total)
            return lambda steps: progress.advance(task, steps)

        yield stage
