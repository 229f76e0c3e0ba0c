"""Two processes with equal, uneven and empty shards compute the bits that one process computes."""

import os
import random
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fedlit.metrics.exact import FixedPointMean
from fedlit.metrics.text import Bleu4, RougeL

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")  # an empty shard

NUM_PAIRS = 200
SHARDS = {
    "equal": (100, 200),
    "uneven": (130, 200),
    "first empty": (0, 200),
    "second empty": (200, 200),
    "none": (0, 0),
}
TEXT = "the model trains on every client and running rounds averages their updates exactly 3.5 times , ."


def corpus() -> tuple[list[str], list[str], torch.Tensor, torch.Tensor]:
    rng = random.Random(0)
    references = [" ".join(rng.choices(TEXT.split(), k=rng.randrange(5, 30))) for _ in range(NUM_PAIRS)]
    predictions = [" ".join(w for w in r.split() if rng.random() < 0.9) for r in references]
    generator = torch.Generator().manual_seed(0)
    return predictions, references, torch.rand(NUM_PAIRS, generator=generator) * 90, torch.arange(NUM_PAIRS) % 31


def scores(start: int, stop: int, *, more: bool) -> list[str]:
    """Return the bits of each metric over rows start..stop, then again, after one more pair if `more`."""
    predictions, references, sums, counts = corpus()
    metrics = rouge, bleu, loss = RougeL(), Bleu4(), FixedPointMean()
    for row in range(start, stop, 16):
        batch = slice(row, min(row + 16, stop))
        rouge.update(predictions[batch], references[batch])
        bleu.update(predictions[batch], references[batch])
        loss.update(sums[batch], counts[batch])
    values = [metric.compute() for metric in metrics]
    if more:
        rouge.update(["the model"], ["the models run"])
        bleu.update(["the model"], ["the models run"])
        loss.update(torch.tensor([7.25]), torch.tensor([3]))
    values += [metric.compute() for metric in metrics]
    return [value.item().hex() for value in values]


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
    assert not set(results[0]["uneven"]) & (set(alone[0]) | set(alone[1]))
