"""Two processes with equal, uneven and empty shards score classes and numbers with the bits of one process."""

import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fedlit.metrics.classification import Classification, Regression

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")  # an empty shard

NUM_EXAMPLES = 200
SHARDS = {
    "equal": (100, 200),
    "uneven": (130, 200),
    "first empty": (0, 200),
    "second empty": (200, 200),
    "one": (1, 1),
    "none": (0, 0),
}
NAMES = ("accuracy", "f1_macro", "f1_weighted", "f1_micro", "mcc", "pearson", "spearman")


def scores(start: int, stop: int, *, more: bool) -> list[str]:
    """Return the bits of every score of the rows start..stop, then again, after one more example if `more`."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(NUM_EXAMPLES, 2, generator=generator) @ torch.tensor([[1.0, 0.7], [0.0, 0.7]])
    classes, regression = Classification(4), Regression()

    def add(part: torch.Tensor) -> None:
        regression.update(*part.unbind(1))
        classes.update(*part.abs().clamp(max=3).long().unbind(1))

    results = []
    for row in range(start, stop, 16):
        add(numbers[row : min(row + 16, stop)])
    results += [classes.compute(), regression.compute()]
    if more:
        add(torch.tensor([[0.5, 2.5]]))
    results += [classes.compute(), regression.compute()]
    return [result[name].item().hex() for result in results for name in NAMES if name in result]


def work(rank: int, port: int, folder: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        results = {}
        for name, (cut, stop) in SHARDS.items():
            results[name] = scores(*((0, cut) if rank == 0 else (cut, stop)), more=rank == 0)
        torch.save(results, Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[str]]]:
    folder = tmp_path_factory.mktemp("metrics")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(work, args=(port, str(folder)), nprocs=2, join=True)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", SHARDS)
def test_two_processes_give_the_bits_of_one(results: list[dict[str, list[str]]], name: str) -> None:
    expected = scores(0, SHARDS[name][1], more=True)
    assert results[0][name] == expected
    assert results[1][name] == expected


def test_the_shards_matter(results: list[dict[str, list[str]]]) -> None:
    """Each process alone has other values, so equality above is the work of the collective."""
    alone = scores(0, 130, more=False), scores(130, 200, more=False)
    assert not set(alone[0]) & set(alone[1])
    assert not set(results[0]["uneven"][:7]) & (set(alone[0]) | set(alone[1]))
