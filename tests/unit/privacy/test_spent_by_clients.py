"""The largest epsilon among clients is what asking for each of them gives, with few questions asked."""

import math
import random

import pytest

from fedlit.privacy import accounting
from fedlit.privacy.accounting import Mechanism, spent, spent_by_clients

DELTA = 1e-5


def each(rows: list[int], batch_size: int, steps: list[int], noise: float, accountant: str) -> list[float]:
    """Return epsilon of every client, asked one after the other."""
    return [
        spent(
            Mechanism(sampling="poisson", cohort_size=batch_size, population=num_rows, noise_multiplier=noise),
            taken, DELTA, accountant,
        ).epsilon
        for num_rows, taken in zip(rows, steps, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize("accountant", ["auto", "rdp"])
@pytest.mark.parametrize("seed", range(2))
def test_the_largest_is_the_largest_of_all(seed: int, accountant: str) -> None:
    draw = random.Random(seed)
    rows = [draw.randint(1, 400) for _ in range(6)]
    steps = [draw.randint(0, 60) for _ in rows]
    largest, client = spent_by_clients(rows, 8, steps, 3.0, DELTA, accountant)
    everyone = each(rows, 8, steps, 3.0, accountant)
    assert largest == max(everyone)
    assert everyone[client] == largest


def test_epochs_of_every_size_are_told_apart() -> None:
    """The same number of epochs everywhere: no client is passed over by its rows and steps alone."""
    rows = [50 * 3**i for i in range(4)]
    largest, client = spent_by_clients(rows, 10, [num // 10 for num in rows], 3.0, DELTA)
    everyone = each(rows, 10, [num // 10 for num in rows], 3.0, "auto")
    assert (largest, client) == (max(everyone), everyone.index(max(everyone)))


def test_few_exact_numbers_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Mechanism] = []

    def counted(mechanism: Mechanism, *words: object) -> accounting.Spent:
        asked.append(mechanism)
        return spent(mechanism, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(accounting, "spent", counted)
    draw = random.Random(0)
    rows = [draw.randint(20, 3000) for _ in range(300)]
    largest, client = spent_by_clients(rows, 8, [20 * num // 8 for num in rows], 1.0, DELTA)
    assert rows[client] == min(rows)
    assert largest > 0
    assert len(asked) <= 3


def test_a_client_that_took_no_step_has_spent_nothing() -> None:
    assert spent_by_clients([10, 0, 30], 4, [0, 5, 0], 1.0, DELTA) == (0.0, 0)
    assert spent_by_clients([], 4, [], 1.0, DELTA) == (0.0, 0)
    assert spent_by_clients([5, 10, 30], 4, [0, 1, 2], 0.0, DELTA) == (math.inf, 1)


def test_a_batch_of_all_rows_takes_every_row() -> None:
    """Rows below the batch size are in every batch: the most steps spend the most, whatever the rows."""
    largest, client = spent_by_clients([3, 4, 2], 4, [5, 9, 7], 2.0, DELTA)
    everybody = Mechanism(sampling="all", cohort_size=1, population=1, noise_multiplier=2.0)
    assert (largest, client) == (spent(everybody, 9, DELTA).epsilon, 1)
