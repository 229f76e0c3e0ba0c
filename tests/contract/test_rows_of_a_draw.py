"""Two seeds of one draw have the same clients and are scored on the same rows; the task version is of these."""

from pathlib import Path
from typing import Any

import pytest
from tiny_federations import ROWS, Builder

from fedlit.inputs import Inputs
from fedlit.partition.shards import make_shards
from fedlit.round.loop import Federation
from fedlit.versioning import rows_digest, task_version


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Federation]:
    """Return untrained federations by draw and seed."""
    builder = Builder(folder=Path(tmp_path_factory.mktemp("draws")), num_layers=1)
    asked = ("partition.min_test_rows=6", "eval.max_examples=4", "eval.max_clients=2", "eval.on=both", "num_clients=4")
    return {
        (draw, seed): builder(f"{draw}-{seed}", *asked, f"partition.seed={draw}", f"seed={seed}")
        for draw in (1, 2)
        for seed in (5, 6)
    }


def scored(federation: Federation) -> list[dict[str, Any]]:
    """Return the rows of the global test set that are scored, as the evaluator has them."""
    prompts = [example.prompt for batch in federation.evaluator.batches for example in batch]
    found = [row for row in ROWS if any(row["prompt"] in prompt for prompt in prompts)]
    assert len(found) == len(prompts) > 0
    return found


def trained(federation: Federation) -> list[list[str]]:
    """Return the training rows of every client, by prompt."""
    return [[row["prompt"] for row in rows] for rows in federation.rows]


def clients(federation: Federation) -> dict[int, list[str]]:
    """Return the prompts of those clients' own test parts that are scored."""
    return {
        client_id: sorted(example.prompt for batch in batches for example in batch)
        for client_id, batches in federation.evaluator.own_batches.items()
    }


def test_two_seeds_of_one_draw_have_the_same_clients_and_test_rows(made: dict[tuple[int, int], Federation]) -> None:
    assert trained(made[1, 5]) == trained(made[1, 6]) != trained(made[2, 5])
    assert len(scored(made[1, 5])) == 4
    assert scored(made[1, 5]) == scored(made[1, 6]) != scored(made[2, 5])
    for federation in made.values():
        assert federation.evaluator.evaluated is not None
        assert len(federation.evaluator.evaluated) == 2
    assert made[1, 5].evaluator.evaluated == made[1, 6].evaluator.evaluated
    assert clients(made[1, 5]) == clients(made[1, 6]) != clients(made[2, 5])


def test_the_version_is_of_the_rows_that_are_scored(made: dict[tuple[int, int], Federation]) -> None:
    for federation in made.values():
        config = federation.config
        shards = make_shards(ROWS, config.data, config.partition, config.num_clients, config.partition.seed or 0)
        version = task_version(Inputs(config=config, rows=ROWS, shards=shards), federation.evaluator.task)
        assert version.rows["global"] == rows_digest(scored(federation), ["prompt", "response"])
