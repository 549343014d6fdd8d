"""Command line: `python -m export RUN -o model.pte`."""

import logging
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

_HELP = """Turn a finished run of `train` into one model file that holds every precision level.

The file is written beside its place and asked itself: its logits are compared with the oracle's, \
its accuracy on the test set with the trained network's. Only if both agree does it get its name.

The same file runs on CPUs and GPUs. With --target vulkan its logits are also compared on a GPU of \
this machine, or on a software one, before it gets its name.

Exit codes: 0 the file is ready; 1 the network cannot be exported, or the file does not compute \
what was trained (nothing is written); 2 wrong usage, not a finished run, or no test set.
"""


def _command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run of `python -m train`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write (.pte).")],
    name: Annotated[str, typer.Option(help="Name of the model; the recipe's if not given.")] = "",
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data set, if not where the recipe says.")
    ] = None,
    target: Annotated[
        str, typer.Option(metavar="cpu|vulkan", help="Where the file has to prove itself.")
    ] = "cpu",
    images: Annotated[
        int,
        typer.Option(
            min=0,
            help="Most test images to measure accuracy on, evenly spread over the set; 0 takes all.",
        ),
    ] = 10_000,
) -> None:
    silence_dependencies()
    # Imported late: PyTorch and ExecuTorch take seconds, which `--help` should not.
    from export.build import UsageError, build
    from export.integer import IntegerNetworkError
    from export.program import ExportError
    from export.verification import VerificationError
    from native_ops import DeviceError, ModelError
    from train.recipe import RecipeError

    progress = Console(stderr=True)
    try:
        build(run, output, name, data, progress, target, images)
        return
    except (UsageError, RecipeError) as error:
        code, message = 2, str(error)
    except DeviceError as error:
        code, message = 2, f"--target {target}: {error}"
    except (ExportError, IntegerNetworkError, ModelError, VerificationError) as error:
        code, message = 1, str(error)
    except OSError as error:
        code, message = 1, f"{error.filename or output}: {error.strerror or error}"
    progress.print(f"error: {message}", style="red", highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(code)


def silence_dependencies() -> None:
    """Keep what ExecuTorch's dependencies say about their own insides off the terminal."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")


app = typer.Typer(add_completion=False)
app.command(help=_HELP)(_command)

if __name__ == "__main__":
    app(prog_name="python -m export")
