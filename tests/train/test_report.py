"""Reports of runs that were really trained, if only for an epoch."""

from __future__ import annotations

import io
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from safetensors.numpy import save_file

from train.__main__ import main as train_main
from train.checkpoint import Progress
from train.engine import Trainer
from train.recipe import MethodRecipe, RecipeError, load_recipe
from train.report import accuracy_table, main, paper_table, run_table, write_report
from train.results import sections

SMALL = [
    "network.name=resnet8",
    "pretrain.epochs=1",
    "train.epochs=1",
    "data.batch=256",
    "train.reestimate_batches=2",
]


def _train(folder: Path, *overrides: str) -> Path:
    Trainer(load_recipe("digits", [*SMALL, *overrides]), folder).run()
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two seeds of MBQuant, a variant of it, AdaBits, two dedicated networks and hot-swap."""
    root = tmp_path_factory.mktemp("runs")
    levels = "method.bits=[2,4]"
    return {
        name: _train(root / name, *overrides)
        for name, overrides in {
            "mbquant-1": (levels,),
            "mbquant-2": (levels, "seed=2"),
            "alone": (levels, "method.distillation=false"),
            "adabits": (levels, "method.name=adabits"),
            "dedicated-2": ("method.name=dedicated", "method.bits=[2]"),
            "dedicated-4": ("method.name=dedicated", "method.bits=[4]"),
            "hot-swap": ("method.name=hot-swap", "method.bits=[1,3]"),
        }.items()
    }


def _accuracy(run: Path) -> dict[str, float]:
    accuracy: dict[str, float] = json.loads((run / "report.json").read_text())["accuracy"]
    return accuracy


def _as_cifar10(run: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a run that says it is of ResNet-20 on CIFAR-10, for which figures were published."""
    shutil.copytree(run, folder)
    recipe = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace('"resnet8"', '"resnet20"'))
    report = json.loads((folder / "report.json").read_text())
    report |= {"dataset": "cifar10 test (10000)", "network": "resnet20", **changes}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_seeds_and_bit_widths_are_grouped(runs: dict[str, Path]) -> None:
    (section,) = sections([*runs.values(), runs["adabits"] / ".." / "adabits"])
    labels = {group.label: [run.folder.name for run in group.runs] for group in section.groups}
    assert labels == {
        "Ind.": ["dedicated-2", "dedicated-4"],
        "AdaC": ["adabits"],
        "MBQuant": ["mbquant-1", "mbquant-2"],
        "MBQuant, no distillation": ["alone"],
        "Hot-swap (reconstruction of arXiv 2105.01353, details inferred)": ["hot-swap"],
    }
    assert section.sets() == [(1, 3), (2, 4)]
    assert [group.label for group in section.groups] == list(labels), "in the paper's order"

    table = paper_table(section, (2, 4))
    assert table.header == ("bits", "Ind.", "AdaC", "MBQuant", "MBQuant, no distillation")
    assert [row[0] for row in table.rows] == ["4 bit", "2 bit", "average", "MB"]
    both = [100 * _accuracy(runs[f"mbquant-{seed}"])["4"] for seed in (1, 2)]
    expected = f"{statistics.mean(both):.2f} ± {statistics.stdev(both):.2f}"
    assert table.rows[0][3] == expected
    alone = [100 * _accuracy(runs[f"dedicated-{bits}"])[str(bits)] for bits in (4, 2)]
    assert [row[1] for row in table.rows[:3]] == [
        f"{value:.2f}" for value in (*alone, statistics.mean(alone))
    ]
    assert "last epoch" in table.caption and "ublished:" not in table.caption


def test_runs_of_one_method_are_told_apart(runs: dict[str, Path], tmp_path: Path) -> None:
    other = _train(tmp_path / "other", "method.bits=[2,4]", "train.lr=0.02")
    named = _train(tmp_path / "named", "method.bits=[2,4]", "train.lr=0.01", "name=slow")
    wide = _train(tmp_path / "wide", "method.bits=[2,6]")
    (section,) = sections([runs["mbquant-1"], other, named, wide])
    assert {group.label for group in section.groups} == {
        f"MBQuant 24 [{runs['mbquant-1']}]",
        f"MBQuant 24 [{other}]",
        "MBQuant 24 [slow]",
        "MBQuant 26",
    }


def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    trained = _train(tmp_path / "trained", "method.bits=[2,4,6,8]")
    accuracy = {"2": 0.9, "4": 0.93, "6": 0.931, "8": 0.932}
    first = _as_cifar10(trained, tmp_path / "first", accuracy=accuracy)
    (section,) = sections([first])
    table = paper_table(section, (2, 4, 6, 8))
    assert table.header == ("bits", "Ind.", "APN", "AdaF", "AdaC", "MBQuant")
    assert [list(row) for row in table.rows] == [
        ["8 bit", "(92.93)", "(89.74)", "(86.61)", "(91.35)", "93.20 (94.00, -0.80)"],
        ["6 bit", "(92.91)", "(89.65)", "(86.81)", "(91.22)", "93.10 (93.61, -0.51)"],
        ["4 bit", "(92.86)", "(89.75)", "(85.98)", "(91.24)", "93.00 (93.22, -0.22)"],
        ["2 bit", "(91.04)", "(88.67)", "(56.84)", "(88.99)", "90.00 (91.24, -1.24)"],
        ["average", "(92.44)", "(89.45)", "(79.06)", "(90.70)", "92.33 (93.02, -0.69)"],
        ["MB", "-", "(1.11)", "(0.30)", "(0.30)", "0.338 (0.34)"],
    ]
    assert "Pattern Recognition 158 (2025)" in table.caption

    printed = io.StringIO()
    report = json.loads((first / "report.json").read_text())
    Console(file=printed, width=200).print(accuracy_table(report, MethodRecipe()))
    assert "93.20 (94.00, -0.80)" in printed.getvalue()
    assert "1 full-precision + 1 quantised epochs, seed 1" in printed.getvalue()
    report |= {"dataset": "imagenet val (50000)", "network": "resnet18"}
    method = MethodRecipe(name="hot-swap", bits=tuple(range(1, 9)))
    Console(file=printed, width=200).print(accuracy_table(report, method))
    assert "93.20 (70.40, +22.80)" in printed.getvalue()


def test_costs_and_circumstances(runs: dict[str, Path]) -> None:
    (section,) = sections(runs.values())
    table = run_table(section)
    column = table.header.index("MBQuant")
    facts = {row[0]: row[column] for row in table.rows}
    # ResNet-8 on 8 x 8 pixels: a body of 0.7537 million multiply-accumulates, twice at 4 bits.
    assert facts["2 bit: BOPs / int8 MACs"] == "0.032 G / 0.782 M"
    assert facts["4 bit: BOPs / int8 MACs"] == "0.041 G / 1.536 M"
    assert facts["3 bit: BOPs / int8 MACs"] == "-"
    assert facts["epochs, full precision + quantised"] == "1 + 1"
    assert facts["train images"] == "1437" and facts["seeds"] == "1, 2"
    assert facts["start"] == "random" and "cpu" in facts["hardware"]
    assert facts["commit"] and facts["PyTorch"] and "mbquant-2" in facts["folders"]


def test_command_line_writes_markdown_and_plots(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    assert main([*map(str, runs.values()), "-o", str(out)]) == 0
    printed = capsys.readouterr()
    assert "MBQuant" in printed.out and "±" in printed.out and "report.md" in printed.err
    names = {"report.md"}
    for kind in ("accuracy-cost", "curves"):
        name = f"{kind}-digits-resnet8"
        names |= {f"{name}.png", f"{name}.svg"}
        with Image.open(out / f"{name}.png") as image:
            assert image.width > 600 and len(image.convert("RGB").getcolors(1 << 20) or []) > 20
        drawn = (out / f"{name}.svg").read_text()
        assert "<svg" in drawn and drawn.rstrip().endswith("</svg>")
        assert f"({name}.png)" in (out / "report.md").read_text()
    assert {path.name for path in out.iterdir()} == names, "nothing is left beside"
    text = (out / "report.md").read_text()
    assert "| bits | Ind. | AdaC | MBQuant | MBQuant, no distillation |" in text
    hot_swap = [line for line in text.splitlines() if "Hot-swap" in line]
    assert hot_swap and all("reconstruction of arXiv 2105.01353" in line for line in hot_swap)


def test_a_run_ends_with_its_table_and_curves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*SMALL, "method.name=hot-swap", "method.bits=[2]"]
    options = [part for pair in overrides for part in ("--set", pair)]
    assert train_main(["digits", "--out", str(tmp_path), *options]) == 0
    assert "reconstruction of arXiv 2105.01353" in " ".join(capsys.readouterr().out.split())
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 600


def test_a_run_without_epochs_is_reported_as_such(runs: dict[str, Path], tmp_path: Path) -> None:
    run = _train(tmp_path / "run", "pretrain.epochs=0", "train.epochs=0", "method.bits=[2,4]")
    assert main([str(run), "-o", str(tmp_path / "report")]) == 0
    assert "| 0 + 0 |" in (tmp_path / "report" / "report.md").read_text()
    equal, unequal = (
        paper_table(sections([runs["mbquant-1"], other])[0], (2, 4)).caption
        for other in (runs["adabits"], run)
    )
    assert "differ between methods" in unequal and "differ" not in equal


def _break(run: Path, folder: Path, file: str, content: str | None) -> Path:
    shutil.copytree(run, folder)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("report.json", None, "not a finished run (no report.json); train it to its end"),
        ("recipe.toml", None, "not a finished run (no recipe.toml)"),
        ("report.json", "{}", "not the report of this run (no name, method, network, accuracy"),
        ("report.json", "half", "report.json: not the report of this run"),
        ("report.json", "[]", "report.json: not the report of this run"),
        ("checkpoint.safetensors", "half", "checkpoint.safetensors: not the checkpoint of a run"),
        (
            "recipe.toml",
            "[method]\nbits = [2, 8]",
            "levels (2, 4), but (2, 8) in the recipe beside it",
        ),
    ],
)
def test_other_folders_are_one_clear_error(
    runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: str | None,
    message: str,
) -> None:
    broken = _break(runs["mbquant-1"], tmp_path / "broken", file, content)
    assert main([str(runs["adabits"]), str(broken), "-o", str(tmp_path / "report")]) == 2
    error = capsys.readouterr().err
    assert message in error and str(broken) in error and "Traceback" not in error
    assert not (tmp_path / "report").exists()


def test_a_history_of_something_else_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    report = json.loads((runs["adabits"] / "report.json").read_text()) | {"history": [1, 2]}
    broken = _break(runs["adabits"], tmp_path / "broken", "report.json", json.dumps(report))
    with pytest.raises(RecipeError, match="history is no list of epochs"):
        sections([broken])


def test_a_report_beside_an_unfinished_run_is_refused(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(progress: Progress, *_: object) -> None:
        if progress.phase == "quantised" and progress.step == 3:
            raise Stop

    recipe = load_recipe("digits", [*SMALL, "method.bits=[2,4]", "train.checkpoint_minutes=0"])
    with pytest.raises(Stop):
        Trainer(recipe, tmp_path / "begun", stop).run()
    shutil.copy(runs["mbquant-1"] / "report.json", tmp_path / "begun")
    with pytest.raises(RecipeError, match="begun: not finished; train it to its end"):
        sections([tmp_path / "begun"])


def test_a_checkpoint_of_something_else_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    broken = _break(runs["mbquant-1"], tmp_path / "broken", "report.json", None)
    shutil.copy(runs["mbquant-1"] / "report.json", broken)
    save_file({}, broken / "checkpoint.safetensors")
    with pytest.raises(RecipeError, match="not the checkpoint of a run"):
        sections([broken])
    assert main([str(tmp_path / "nowhere")]) == 2


def test_the_same_run_in_two_folders_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs["mbquant-1"], copy)
    with pytest.raises(RecipeError, match="the same recipe and seed; leave one out"):
        sections([runs["mbquant-1"], copy])


def test_an_unwritable_folder_is_an_error(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(runs["adabits"]), "-o", str(tmp_path / "file")]) == 1
    assert "cannot be made" in capsys.readouterr().err


def test_parts_of_a_dataset_are_not_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    found = sections(
        [
            _as_cifar10(runs["mbquant-1"], tmp_path / "half", dataset="cifar10 test (5000)"),
            _as_cifar10(runs["mbquant-1"], tmp_path / "whole"),
            runs["mbquant-1"],
        ]
    )
    assert [(section.dataset, section.network) for section in found] == [
        ("cifar10 test (10000)", "resnet20"),
        ("cifar10 test (5000)", "resnet20"),
        ("digits held-out (360)", "resnet8"),
    ]
    write_report(found, tmp_path / "report")
    assert len(list((tmp_path / "report").glob("*.png"))) == 6, "none replaces another"
