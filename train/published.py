"""Accuracies and sizes that others published, to stand beside ours.

The figures are in ``published.toml``, one table for each dataset, network and set of bit-widths, with
their source; columns have the names of the tables in Zhong et al., "MBQuant", Pattern Recognition 158
(2025).
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from train.recipe import MethodRecipe

SOURCES = {
    "final": 'Zhong et al., "MBQuant", Pattern Recognition 158 (2025)',
    "v1": "arXiv 2305.08117v1, the first version of Zhong et al. (2025)",
}
ORDER = ("Ind.", "APN", "AdaF", "AdaC", "Bit-Mixer", "ABN", "MultiQuant", "MBQuant")
"""Methods from left to right, as in the paper."""


@dataclass(frozen=True)
class PublishedTable:
    """One table: top-1 in percent ``{method: {bits: percent}}``, sizes in MB ``{method: MB}``."""

    percent: dict[str, dict[int, float]]
    megabytes: dict[str, float]
    source: str
    note: str


@functools.cache
def _tables() -> dict[tuple[str, str, tuple[int, ...]], PublishedTable]:
    text = (Path(__file__).parent / "published.toml").read_text()
    tables = {}
    for entry in tomllib.loads(text)["table"]:
        percent = {
            method: {
                b: value
                for b, value in zip(entry["bits"], values, strict=True)
                if not math.isnan(value)
            }
            for method, values in entry["percent"].items()
        }
        source = SOURCES.get(entry["source"], entry["source"])
        key = entry["dataset"], entry["network"], tuple(sorted(entry["bits"]))
        tables[key] = PublishedTable(
            percent, entry.get("megabytes", {}), source, entry.get("note", "")
        )
    return tables


def published_table(dataset: str, network: str, bits: Iterable[int]) -> PublishedTable | None:
    """The table for a set of bit-widths that one network holds, or None where none was published.

    Args:
        dataset: such as ``cifar10``.
        network: name in :data:`train.networks.NETWORKS`.
        bits: the whole set, in any order.
    """
    return _tables().get((dataset, network, tuple(sorted(bits))))


def published(dataset: str, network: str, bits: Iterable[int], method: str) -> dict[int, float]:
    """Top-1 in percent for each bit-width, empty where nothing was published.

    ``method`` is a column of the tables. Networks of a single bit-width ("Ind.") do not depend on
    the set, so for them every set with one of the bit-widths counts.
    """
    wanted = set(bits)
    if method.startswith("Ind."):
        return {
            b: value
            for (d, n, _), table in _tables().items()
            if (d, n) == (dataset, network)
            for b, value in table.percent.get(method, {}).items()
            if b in wanted
        }
    found = published_table(dataset, network, wanted)
    return dict(found.percent.get(method, {})) if found else {}


def published_size(dataset: str, network: str, bits: Iterable[int], method: str) -> float | None:
    """Size of the parameters in MB (10^6 bytes), or None where none was published."""
    found = published_table(dataset, network, bits)
    return found.megabytes.get(method) if found else None


def place(name: str) -> tuple[int, str]:
    """Sorts columns as in the paper: a variant follows its method, what the paper lacks comes last."""
    method = name.partition(",")[0]
    return (ORDER.index(method) if method in ORDER else len(ORDER), name)


def column(method: MethodRecipe) -> str:
    """The column of the tables that shows a method of ours, or would if it had been published."""
    if method.name == "adabits":
        return "AdaF" if method.quantizer == "floor" else "AdaC"
    if method.name == "hot-swap":
        controls = {"fixed": ", gains fixed at 1", "random": ", random bands"}
        return "Hot-swap" + controls.get(method.bands, "")
    if method.name != "mbquant":
        return {"dedicated": "Ind.", "any-precision": "APN"}[method.name]
    # Up to 4 bits there are two branches, and both schemes are the serial one.
    serial = method.selection == "serial" and max(method.bits) > 4
    alone = not method.distillation or method.teacher == "none"
    return "MBQuant" + ", serial" * serial + ", no distillation" * alone
