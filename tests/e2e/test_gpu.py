"""The same code on CUDA: one process, and two processes that share one device over gloo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SCRIPT, SMALL, CommandLine, environment, free_port, merge

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
ON_CUDA = ("compute.accelerator=cuda", "compute.precision=bf16-mixed", "model.dtype=bfloat16", "local.steps=8")


def losses(command_line: CommandLine, name: str) -> list[float]:
    lines = (command_line.folder / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["global/loss"] for line in lines]


def test_one_process(command_line: CommandLine) -> None:
    done = command_line.run("one", *ON_CUDA)
    assert done.returncode == 0, done.stderr
    assert "on cuda:0" in done.stdout
    seen = losses(command_line, "one")
    assert seen[-1] < seen[0]


def test_two_processes_on_one_device_over_gloo(command_line: CommandLine) -> None:
    """Two nodes of one device each, both of them this one: Lightning refuses one device twice on one node."""
    arguments = [*merge(SMALL, ON_CUDA), "compute.backend=gloo", f"run.dir={command_line.folder}", "run.name=two"]
    port = free_port()
    words = [str(Path(sys.executable).parent / "torchrun"), "--nnodes=2", "--nproc-per-node=1"]
    words += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    nodes = [
        subprocess.Popen([*words, f"--node-rank={rank}", str(SCRIPT), *arguments], env=environment())
        for rank in range(2)
    ]
    assert [node.wait(timeout=300) for node in nodes] == [0, 0]
    done = command_line.run("one", *ON_CUDA)
    assert done.returncode == 0, done.stderr
    assert losses(command_line, "two") == losses(command_line, "one")
