"""Command line: ``python -m train report RUNS... [-o FOLDER]``: tables and plots of finished runs.

Accuracies are laid out as in the paper, ours beside the published ones; costs, learning curves and the
circumstances of every run follow. Everything is what the runs' folders hold: the last epoch, never
the best.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.console import Group as Lines
from rich.table import Table as RichTable
from rich.text import Text

from train.checkpoint import TrainingError, write_beside
from train.published import ORDER, column, place, published, published_size, published_table
from train.recipe import MethodRecipe, RecipeError
from train.results import Group, Section, label, sections

LAST_EPOCH = (
    "Top-1 accuracy in percent of the last epoch's network, its normalisation statistics estimated anew "
    "where the recipe says so; no epoch is chosen by its accuracy."
)
_PARENTHESES = "In parentheses: published, and ours less published."


@dataclass(frozen=True)
class Table:
    """Text in rows and columns, for a terminal and for Markdown."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str

    def rich(self) -> Lines:
        table = RichTable()
        for index, name in enumerate(self.header):
            table.add_column(Text(name), justify="right" if index else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return Lines(Text(self.title, style="bold"), table, Text(self.caption), "")

    def markdown(self) -> str:
        def line(cells: Iterable[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        rule = "|---|" + "---:|" * (len(self.header) - 1)
        lines = [line(self.header), rule, *map(line, self.rows)]
        return "\n".join([f"### {self.title}", "", *lines, "", self.caption])


def accuracy_table(report: dict[str, Any], method: MethodRecipe) -> Lines:
    """Top-1 of one run just finished, beside the published figure where there is one.

    Args:
        report: what ``report.json`` holds.
        method: of the run's recipe.
    """
    name = label(method)
    dataset = report["dataset"].split()[0]
    reference = published(dataset, report["network"], method.bits, column(method))
    rows = []
    for bits in sorted(map(int, report["accuracy"]), reverse=True):
        percent = 100.0 * report["accuracy"][str(bits)]
        rows.append([f"{bits} bit", _against([percent], reference.get(bits))])
    circumstances = (
        f"{report['pretrain_epochs']} full-precision + {report['epochs']} quantised epochs, "
        f"seed {report['seed']}, {report['wall_seconds'] / 60:.0f} min on {report['hardware']}"
    )
    caption = " ".join([LAST_EPOCH, *[_PARENTHESES] * bool(reference), f"{circumstances}."])
    title = f"{report['name']}: {report['network']}, {report['dataset']}"
    return Table(title, ("level", name), rows, caption).rich()


def _against(ours: list[float], reference: float | None) -> str:
    """``mean ± spread (published, difference)`` of accuracies in percent."""
    if not ours:
        return "-" if reference is None else f"({reference:.2f})"
    mean = statistics.mean(ours)
    text = f"{mean:.2f}"
    if len(ours) > 1:
        text += f" ± {statistics.stdev(ours):.2f}"
    return text if reference is None else f"{text} ({reference:.2f}, {mean - reference:+.2f})"


def paper_table(section: Section, bits: tuple[int, ...]) -> Table:
    """Accuracies of one set of bit-widths in the layout of the paper.

    Rows: bit-widths from the highest, their average, MB. Columns: methods, those that were published
    but not trained here too.
    """
    groups = {
        group.label: group
        for group in section.groups
        if group.bits == bits or (group.dedicated and set(group.bits) & set(bits))
    }
    columns = {name: group.column for name, group in groups.items()}
    table = published_table(section.name, section.network, bits)
    for method in table.percent if table else ():
        if method in ORDER and method not in columns.values():
            columns[method] = method
    names = sorted(columns, key=lambda name: (place(columns[name]), name))
    references = {
        name: published(section.name, section.network, bits, columns[name]) for name in names
    }
    descending = sorted(bits, reverse=True)
    rows = [
        [f"{b} bit"]
        + [
            _against(groups[name].percent(b) if name in groups else [], references[name].get(b))
            for name in names
        ]
        for b in descending
    ]
    rows.append(
        ["average"] + [_average(groups.get(name), references[name], descending) for name in names]
    )
    rows.append(
        ["MB"]
        + [
            _size(
                groups.get(name),
                bits,
                published_size(section.name, section.network, bits, columns[name]),
            )
            for name in names
        ]
    )
    title = f"{section.dataset}, {section.network}, bits {' '.join(map(str, descending))}"
    return Table(title, ("bits", *names), rows, _accuracy_caption(groups.values(), section, bits))


def _average(group: Group | None, reference: dict[int, float], bits: list[int]) -> str:
    ours = group.average(bits) if group and set(bits) <= set(group.bits) else []
    theirs = statistics.mean(reference.values()) if set(reference) == set(bits) else None
    return _against(ours, theirs)


def _size(group: Group | None, bits: tuple[int, ...], reference: float | None) -> str:
    ours = f"{group.storage_bytes(bits) / 1e6:.3g}" if group else ""
    theirs = "" if reference is None else f"({reference:.2f})"
    return f"{ours} {theirs}".strip() or "-"


def _accuracy_caption(groups: Iterable[Group], section: Section, bits: tuple[int, ...]) -> str:
    found = published_table(section.name, section.network, bits)
    members = list(groups)
    parts = [LAST_EPOCH]
    if any(len(group.percent(b)) > 1 for group in members for b in group.bits):
        parts.append("Mean ± sample standard deviation over seeds.")
    if len({_budget(group) for group in members}) > 1:
        parts.append("Epochs, start or training images differ between methods: see their table.")
    if found:
        parts.append(_PARENTHESES)
        parts.append(f"Published: {found.source}; averages are computed from its rows.")
        parts.append(found.note)
    parts.append(
        "MB: 10^6 bytes that hold all levels, by the published formula; for Ind. the sum of the "
        "networks trained."
        if any(group.dedicated for group in members)
        else "MB: 10^6 bytes that hold all levels, by the published formula."
    )
    return " ".join(part for part in parts if part)


def _budget(group: Group) -> tuple[object, ...]:
    run = group.runs[0]
    start = Path(run.recipe.pretrain.init).name
    return run.report["pretrain_epochs"], run.report["epochs"], start, run.report["train_images"]


def run_table(section: Section) -> Table:
    """Costs, budget and circumstances of every group."""
    groups = section.groups
    levels = sorted({b for group in groups for b in group.bits}, reverse=True)
    rows = []
    for bits in levels:
        costs = [group.levels.get(bits) for group in groups]
        rows.append(
            [f"{bits} bit: BOPs / int8 MACs"]
            + [f"{_short(c.bops / 1e9)} G / {_short(c.macs / 1e6)} M" if c else "-" for c in costs]
        )
    facts = [_facts(group) for group in groups]
    rows += [[name, *(fact[name] for fact in facts)] for name in facts[0]]
    caption = (
        "Costs are of one image. BOPs: multiply-accumulates times the bits of both operands, 32 where "
        "in full precision. Int8 MACs: multiply-accumulates that a machine with 8-bit multipliers "
        "executes, stem and classifier included."
    )
    title = f"{section.dataset}, {section.network}: costs and circumstances"
    return Table(title, ("", *(group.label for group in groups)), rows, caption)


def _facts(group: Group) -> dict[str, str]:
    reports = [run.report for run in group.runs]
    recipe, first = group.runs[0].recipe, reports[0]
    minutes = sorted(round(report["wall_seconds"] / 60) for report in reports)
    span = minutes[:1] if minutes[0] == minutes[-1] else [minutes[0], minutes[-1]]

    def distinct(key: str) -> str:
        return ", ".join(dict.fromkeys(str(report[key]) for report in reports))

    return {
        "MB": f"{group.storage_bytes(group.bits) / 1e6:.4g}",
        "epochs, full precision + quantised": f"{first['pretrain_epochs']} + {first['epochs']}",
        "start": Path(recipe.pretrain.init).name or "random",
        "train images": distinct("train_images"),
        "seeds": distinct("seed"),
        "minutes of a run": " to ".join(map(str, span)),
        "hardware": distinct("hardware"),
        "PyTorch": distinct("torch"),
        "commit": distinct("commit"),
        "folders": ", ".join(str(run.folder) for run in group.runs),
    }


def _short(value: float) -> str:
    """Four significant digits without an exponent."""
    decimals = 3 if value < 10 else 2 if value < 100 else 1 if value < 1000 else 0
    return f"{value:.{decimals}f}"


def write_report(found: list[Section], folder: Path) -> Path:
    """Write ``report.md`` with its plots (PNG and SVG) and return its path.

    Raises:
        TrainingError: when the folder cannot be written.
    """
    from train import figures  # matplotlib only when there is something to draw

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"{folder}: cannot be made ({error.strerror}); choose another -o"
        ) from None
    parts = ["# Results"]
    for index, section in enumerate(found):
        parts += [f"## {section.dataset}, {section.network}"]
        parts += [paper_table(section, bits).markdown() for bits in section.sets()]
        slug = f"{section.name}-{section.network}" + (
            f"-{index}" if _repeats(section, found) else ""
        )
        for kind, draw in (("accuracy-cost", figures.accuracy_cost), ("curves", figures.curves)):
            for suffix, data in draw(section).items():
                write_beside(folder / f"{kind}-{slug}.{suffix}", data)
            parts.append(f"![{kind} of {section.network}]({kind}-{slug}.png)")
            parts.append(figures.CAPTIONS[kind])
        parts.append(run_table(section).markdown())
    path = folder / "report.md"
    write_beside(path, ("\n\n".join(parts) + "\n").encode())
    return path


def _repeats(section: Section, found: list[Section]) -> bool:
    """Whether the same network was tested on another part of the same dataset too."""
    return sum((s.name, s.network) == (section.name, section.network) for s in found) > 1


def main(arguments: list[str] | None = None) -> int:
    """Report finished runs; returns the exit code (0 done, 1 cannot write, 2 bad input)."""
    parser = argparse.ArgumentParser(
        prog="python -m train report",
        description="Tables and plots of finished runs, beside the published figures.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a finished run's folder")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("report"), metavar="FOLDER", help="default: report"
    )
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        found = sections(options.runs)
        path = write_report(found, options.out)
    except RecipeError as error:
        console.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
        return 2
    except TrainingError as error:
        console.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
        return 1
    tables = Console()
    for section in found:
        for bits in section.sets():
            tables.print(paper_table(section, bits).rich())
    console.print(f"written: {path}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
