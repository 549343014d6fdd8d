"""Server side: trains networks that change their precision at run time.

``python -m train RECIPE.toml`` trains one experiment into a run folder, which ``export`` turns into a
``.pte`` file. This room imports neither ``export`` nor ``edge_app`` nor ``native_ops``, and needs
nothing of ExecuTorch: it runs on any server with PyTorch.
"""

from __future__ import annotations

from train.checkpoint import LoadedRun, load_run
from train.evaluation import evaluate

__all__ = ["LoadedRun", "evaluate", "load_run"]
