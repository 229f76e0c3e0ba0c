"""Collected scores on two processes with equal, uneven and empty shards have the bits of one process."""

import os
import random
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fedlit.metrics.answers import Accuracy, ExactMatch
from fedlit.metrics.data_to_text import Bleu, Cider, Meteor, Nist

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")  # an empty shard

NUM_PAIRS = 60
SHARDS = {"equal": (30, 60), "uneven": (47, 60), "first empty": (0, 60), "second empty": (60, 60), "none": (0, 0)}
TEXT = "The Eagle is a family-friendly pub near Burger King , isn't cheap ( £20-25 ) and serves food by the riverside ."


def corpus() -> tuple[list[str], list[list[str]], list[str]]:
    """Return predictions, 1 to 4 references each of different lengths, and groups that no process has all of."""
    rng = random.Random(0)
    references = [
        [" ".join(rng.choices(TEXT.split(), k=rng.randrange(6, 25))) for _ in range(rng.randrange(1, 5))]
        for _ in range(NUM_PAIRS)
    ]
    predictions = [" ".join(word for word in rng.choice(texts).split() if rng.random() < 0.9) for texts in references]
    return predictions, references, [f"group {row // 9}" for row in range(NUM_PAIRS)]


def scores(start: int, stop: int, *, more: bool) -> list[str]:
    """Return names and bits of all scores over rows start..stop, then again, after one more row if `more`."""
    predictions, references, groups = corpus()
    over_texts = Bleu(), Nist(), Meteor(), Cider()
    exact, accuracy = ExactMatch("number"), Accuracy()

    def update(rows: range) -> None:
        part = slice(rows.start, rows.stop)
        for metric in over_texts:
            metric.update(predictions[part], references[part])
        exact.update([f"#### {row % 7}" for row in rows], [f"#### {row % 5}" for row in rows], groups[part])
        accuracy.update([row % 3 == 0 for row in rows], groups[part])

    def computed() -> list[str]:
        values = {type(metric).__name__: metric.compute() for metric in over_texts}
        values |= exact.compute()
        values |= accuracy.compute()
        return [f"{name} {value.item().hex()}" for name, value in values.items()]

    for row in range(start, stop, 16):
        update(range(row, min(row + 16, stop)))
    first = computed()
    if more:
        update(range(7, 8))
    return first + computed()


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
    whole = set(results[0]["uneven"])
    for alone in (scores(0, 47, more=False), scores(47, 60, more=False)):
        every = {line for line in alone if "/" not in line}  # some group lies with one process
        assert len(every) == 8
        assert not every & whole
