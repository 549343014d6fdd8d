"""Command line: ``python -m train RECIPE.toml [--set key=value] [--out FOLDER]``.

``python -m train report`` makes tables and plots of finished runs, ``python -m train bench`` measures a
training step; each explains itself with --help.

Exit codes: 0 done, or paused by --until; 1 training failed; 2 bad input; 130 ctrl-C; 143 SIGTERM, after
saving. In every case the same command continues.
"""

from __future__ import annotations

import argparse
import importlib
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from train.allocator import keep_freed_memory
from train.checkpoint import Progress as RunProgress
from train.checkpoint import TrainingError
from train.distributed import World, join
from train.engine import Paused, Trainer
from train.failures import out_of_memory
from train.recipe import RecipeError, load_recipe
from train.report import accuracy_table

OTHERS = ("report", "bench")
"""Commands besides training; a recipe of such a name is given with its path."""


class Reporter:
    """A progress bar on a terminal; elsewhere one line now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("epoch {task.fields[epoch]}  {task.fields[losses]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("starting", epoch="", losses="")
        self.last_line = 0.0

    def __call__(
        self, progress: RunProgress, steps: int, epochs: int, losses: dict[int, float]
    ) -> None:
        text = "  ".join(f"{bits}b {loss:.3f}" for bits, loss in sorted(losses.items()))
        done = progress.epoch * steps + progress.step
        self.bar.update(
            self.task,
            description=progress.phase,
            completed=done,
            total=epochs * steps,
            epoch=f"{progress.epoch + 1}/{epochs}",
            losses=text,
        )
        now = time.monotonic()
        if not self.console.is_terminal and (now - self.last_line > 30 or progress.step == steps):
            self.last_line = now
            accuracy = ""
            if progress.history and progress.step <= 1:
                latest = progress.history[-1]
                accuracy = "  test " + " ".join(
                    f"{k.removeprefix('accuracy')}b {v:.4f}"
                    for k, v in latest.items()
                    if k.startswith("accuracy") and isinstance(v, float)
                )
            self.console.print(
                f"{progress.phase} epoch {progress.epoch + 1}/{epochs} step {progress.step}/{steps}"
                f"  loss {text}{accuracy}",
                highlight=False,
                soft_wrap=True,
            )


def build_parser() -> argparse.ArgumentParser:
    """The options of ``python -m train``."""
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", help="a recipe file, or the name of a shipped one")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key"
    )
    parser.add_argument(
        "--out", type=Path, help="run folder (default: runs/NAME); resumed if begun"
    )
    parser.add_argument(
        "--until",
        type=float,
        default=math.inf,
        metavar="MINUTES",
        help="pause at a checkpoint after so many minutes of this call",
    )
    return parser


@contextmanager
def pausing_on_sigterm(trainer: Trainer) -> Iterator[None]:
    """Within it SIGTERM (a preempted job's) lets the trainer save first."""

    def pause(*_: object) -> None:
        trainer.interrupted = True

    before = signal.signal(signal.SIGTERM, pause)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: list[str] | None = None) -> int:
    """Train one recipe, or what the first argument names; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in OTHERS:
        code: int = importlib.import_module(f"train.{arguments[0]}").main(arguments[1:])
        return code
    options = build_parser().parse_args(arguments)
    keep_freed_memory()
    with join() as world:
        return train(options, world)


def train(options: argparse.Namespace, world: World) -> int:
    """Train as one of the processes of ``world``; only the first prints, but errors are everyone's."""
    console = Console(stderr=True)
    who = "" if world.size == 1 else f"process {world.rank} of {world.size}: "

    def fail(error: Exception, code: int) -> int:
        console.print(f"{who}error: {error}", style="red", highlight=False, soft_wrap=True)
        return code

    try:
        if not options.until > 0:
            raise RecipeError("--until: expected a number of minutes above 0")
        recipe = load_recipe(options.recipe, options.set)
        reporter = Reporter(console) if world.first else None
        folder = options.out or Path("runs") / recipe.name
        trainer = Trainer(recipe, folder, reporter, world, options.until)
        if trainer.teacher and world.first:
            console.print(trainer.teacher.describe(), highlight=False, soft_wrap=True)
        with reporter.bar if reporter else nullcontext(), pausing_on_sigterm(trainer):
            report = trainer.run()
    except RecipeError as error:
        return fail(error, 2)
    except TrainingError as error:
        return fail(error, 1)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        advice = "lower data.batch or method.calibration_images"
        return fail(TrainingError(f"no memory outside a training step; {advice} ({error})"), 1)
    except Paused as pause:
        if world.first:
            console.print(
                f"paused at a checkpoint in {folder}; the same command continues", soft_wrap=True
            )
        return 128 + signal.SIGTERM if pause.signalled else 0
    except KeyboardInterrupt:
        if world.first:
            console.print("stopped; the same command continues from the last checkpoint")
        return 130
    if world.first:
        from train.figures import plot_history  # matplotlib only when there is something to draw

        plot_history(report, recipe.method, folder / "curves.png")
        Console().print(accuracy_table(report, recipe.method))
        after = f"python -m train report {folder}"
        if recipe.method.name in ("mbquant", "dedicated"):  # what has 2-bit branches
            after = f"python -m export {folder} -o model.pte"
        console.print(f"run folder: {folder}; next: {after}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
