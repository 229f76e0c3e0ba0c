"""Devices, backends and threads that this machine does not have are one line before a model is loaded."""

import os
import threading

import pytest
import torch

from fedlit.config import ComputeConfig
from fedlit.errors import ProcessError
from fedlit.process import devices
from fedlit.process.devices import num_startable, require_devices

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "4"}


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let torch see two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return monkeypatch


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def refusal(compute: ComputeConfig, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ProcessError) as caught:
        require_devices(compute, environ or {})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400
    return str(caught.value)


@pytest.mark.usefixtures("no_gpus")
def test_without_a_gpu_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    require_devices(ComputeConfig(), {})
    require_devices(ComputeConfig(accelerator="cpu", devices=64, backend="gloo"), {})
    monkeypatch.setattr(torch.version, "cuda", None)
    line = refusal(ComputeConfig(accelerator="cuda"))
    assert line.startswith("compute.accelerator=cuda, but torch ")
    assert "is built without CUDA" in line
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    assert "torch sees no GPU" in refusal(ComputeConfig(accelerator="cuda"))
    assert "torch sees no GPU" in refusal(ComputeConfig(), {"LT_ACCELERATOR": "gpu"})


@pytest.mark.usefixtures("no_gpus")
@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_nccl_is_between_gpus(accelerator: str) -> None:
    line = refusal(ComputeConfig(accelerator=accelerator, backend="nccl"))
    assert line.startswith("compute.backend=nccl is between GPUs")


@pytest.mark.usefixtures("gpus")
def test_a_gpu_for_each_process() -> None:
    for accelerator in ("cuda", "auto"):
        require_devices(ComputeConfig(accelerator=accelerator, devices=2, backend="nccl"), {})
        assert refusal(ComputeConfig(accelerator=accelerator, devices=3)).startswith("3 processes on this machine")
        assert refusal(ComputeConfig(accelerator=accelerator), TORCHRUN).startswith("4 processes on this machine")
    require_devices(ComputeConfig(accelerator="cpu", devices=3), {})
    assert "nccl" in refusal(ComputeConfig(accelerator="cpu", backend="nccl"))


def test_as_many_threads_as_there_are_cpus_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_number: int) -> int:
        raise AssertionError

    monkeypatch.setattr(devices, "num_startable", never)
    require_devices(ComputeConfig(accelerator="cpu", threads=os.cpu_count() or 1), {})


def test_more_threads_are_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    before = threading.active_count()
    require_devices(ComputeConfig(accelerator="cpu", threads=40), {})
    assert threading.active_count() == before
    start, started = threading.Thread.start, []

    def scarce(thread: threading.Thread) -> None:
        if len(started) == 20:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    line = refusal(ComputeConfig(accelerator="cpu", threads=40))
    assert line.startswith("compute.threads=40, and the system gives this process 21 (")
    assert line.endswith("give 4 or fewer")
    assert threading.active_count() == before


@pytest.mark.parametrize("number", [4097, 20_000, 10**9, 10**30])
def test_far_more_threads_are_not_tried_out(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    line = refusal(ComputeConfig(accelerator="cpu", threads=number))
    assert line == f"compute.threads={number}, and this machine has 4 CPUs; give at most 4096, best 4 or fewer"


def test_none_is_started_for_none() -> None:
    assert num_startable(0) == 0
