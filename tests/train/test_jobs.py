"""The example job files: they parse, and every option that they use exists."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from train.__main__ import build_parser
from train.recipe import load_recipe

JOBS = Path(__file__).parents[2] / "train" / "jobs"


def check_torchrun(arguments: list[str]) -> None:
    """PyTorch's own parser takes what is before the module, ours what follows, and the recipe."""
    launcher = get_args_parser().parse_args(arguments)
    assert launcher.module and launcher.training_script == "train"
    options = build_parser().parse_args(launcher.training_script_args)
    load_recipe(options.recipe, options.set)
    assert options.out is not None


@pytest.mark.parametrize("finished", [False, True])
def test_slurm_job_queues_itself_until_the_report_is_there(tmp_path: Path, finished: bool) -> None:
    """The script itself runs, with Slurm's commands replaced by ones that print."""
    log = tmp_path / "log"
    for name in ("srun", "scontrol"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >> {shlex.quote(str(log))}\necho node1\n'
        )
        program.chmod(0o755)
    if finished:
        (tmp_path / "report.json").write_text("{}")
    slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7"}
    command = ["bash", str(JOBS / "slurm.sbatch"), "digits", str(tmp_path), "--set", "seed=2"]
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(command, check=True, env={**os.environ, **slurm, "PATH": path})
    lines = log.read_text().splitlines()
    assert lines[0] == "scontrol show hostnames node[1-2]"
    program, *arguments = shlex.split(lines[1].removeprefix("srun "))
    assert program == "torchrun" and "--rdzv-endpoint=node1:29500" in arguments
    assert "--nnodes=2" in arguments and "--until" in arguments
    check_torchrun(arguments)
    assert lines[2:] == ([] if finished else ["scontrol requeue 7"])


def test_kubernetes_job() -> None:
    job = yaml.safe_load((JOBS / "pytorchjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    pod = worker["template"]["spec"]
    (container,) = pod["containers"]
    program, *arguments = container["command"]
    assert program == "torchrun"
    check_torchrun(arguments)
    limits = container["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == int(job["spec"]["nprocPerNode"])
    assert worker["replicas"] == job["spec"]["elasticPolicy"]["maxReplicas"]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
