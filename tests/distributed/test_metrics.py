"""Two processes with equal, uneven and empty shards compute the bits that one process computes."""

import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from metric_scores import NUM_ROWS, scores

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")  # an empty shard

SHARDS = {
    "equal": (NUM_ROWS // 2, NUM_ROWS),
    "uneven": (79, NUM_ROWS),
    "first empty": (0, NUM_ROWS),
    "second empty": (NUM_ROWS, NUM_ROWS),
    "one row": (1, 1),
    "none": (0, 0),
}
Results = dict[str, list[dict[str, str]]]


def work(rank: int, port: int, folder: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        results: Results = {}
        for name, (cut, stop) in SHARDS.items():
            results[name] = scores(*((0, cut) if rank == 0 else (cut, stop)), more=rank == 0)
        torch.save(results, Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    folder = tmp_path_factory.mktemp("metrics")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(work, args=(port, str(folder)), nprocs=2, join=True)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", SHARDS)
def test_two_processes_give_the_bits_of_one(results: list[Results], name: str) -> None:
    expected = scores(0, SHARDS[name][1], more=True)
    assert results[0][name] == expected
    assert results[1][name] == expected


def test_the_shards_matter(results: list[Results]) -> None:
    """Each process alone has other values, so equality above is the work of the collective."""
    cut, stop = SHARDS["uneven"]
    whole = results[0]["uneven"][0]
    for alone in (scores(0, cut, more=False)[0], scores(cut, stop, more=False)[0]):
        same = {name for name, value in alone.items() if value == whole[name]}
        assert all("/" in name for name in same), same  # some group lies with one process
