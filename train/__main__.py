"""Command line: ``python -m train RECIPE.toml [--set key=value] [--out FOLDER]``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from train.engine import Progress as RunProgress
from train.engine import Trainer, TrainingError
from train.recipe import RecipeError, load_recipe
from train.report import accuracy_table, plot_history


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


def main(arguments: list[str] | None = None) -> int:
    """Train one recipe; returns the exit code (0 done, 1 training failed, 2 bad input)."""
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    parser.add_argument("recipe", help="a recipe file, or the name of a shipped one")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key"
    )
    parser.add_argument(
        "--out", type=Path, help="run folder (default: runs/NAME); resumed if begun"
    )
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        recipe = load_recipe(options.recipe, options.set)
        reporter = Reporter(console)
        folder = options.out or Path("runs") / recipe.name
        trainer = Trainer(recipe, folder, reporter)
        with reporter.bar:
            report = trainer.run()
    except RecipeError as error:
        console.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
        return 2
    except TrainingError as error:
        console.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("stopped; the same command continues from the last checkpoint")
        return 130
    plot_history(report, folder / "curves.png")
    Console().print(accuracy_table(report))
    console.print(f"run folder: {folder}; next: python -m export {folder} -o model.pte")
    return 0


if __name__ == "__main__":
    sys.exit(main())
