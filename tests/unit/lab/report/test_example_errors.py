"""Errors over examples come from the tables of single examples, and are those of the score that is in the record."""

import csv
import io
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlit.lab.analysis.collection import Collection
from fedlit.lab.report.cells import measure_all
from fedlit.lab.report.layout import make_layout
from fedlit.lab.report.over_draws.claims import Claims, claims_of
from fedlit.lab.report.over_draws.examples import Error
from fedlit.lab.report.over_draws.files import EXAMPLES, examples_csv
from fedlit.lab.report.over_draws.sections import sections_of
from fedlit.store import example_scores

Settings = Mapping[str, Any]
NUM_ROUNDS, NUM_EXAMPLES = 3, 40
CELLS = [
    {"method": method, "partition.seed": draw, "seed": seed}
    for method in ("fedit", "flora")
    for draw in range(3)
    for seed in range(2)
]


def examples(s: Settings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ROUGE-L, nats and tokens of every example: those of one draw are alike, for all methods."""
    rng = np.random.default_rng([s["partition.seed"], s["seed"], s["method"] == "flora"])
    easy = np.random.default_rng(s["partition.seed"]).normal(0.5, 0.2, NUM_EXAMPLES)
    rouge = easy + 0.05 * (s["method"] == "flora") + rng.normal(0, 0.02, NUM_EXAMPLES)
    tokens = np.random.default_rng(7).integers(2, 30, NUM_EXAMPLES)
    return rouge, tokens * (2 - rouge), tokens


def columns(s: Settings, clients: tuple[int | None, ...] = (None,)) -> dict[str, list[Any]]:
    rouge, nats, tokens = examples(s)
    num = len(clients)
    return {
        "set": ["global"] * NUM_EXAMPLES * num,
        "client": [client for client in clients for _ in range(NUM_EXAMPLES)],
        "position": list(range(NUM_EXAMPLES)) * num,
        "example": [f"e{i}" for i in range(NUM_EXAMPLES)] * num,
        "group": [None] * NUM_EXAMPLES * num,
        "prediction": [""] * NUM_EXAMPLES * num,
        "rouge_l": [float(value + 0.01 * k) for k in range(num) for value in rouge],
        "loss_sum": [float(value) for _ in clients for value in nats],
        "loss_count": [int(value) for _ in clients for value in tokens],
        "bleu_4_counts": [[1, 2]] * NUM_EXAMPLES * num,
    }


def scores(s: Settings, number: int) -> dict[str, float]:
    rouge, nats, tokens = examples(s)
    return {
        "global/rouge_l": float(rouge.mean()),
        "global/loss": float(nats.sum() / tokens.sum()),
        "global/bleu_4": 0.1,
    }


@pytest.fixture
def collection(make_collection: Callable[..., Collection], tmp_path: Path) -> Collection:
    found = make_collection(CELLS, scores)
    entries = [replace(entry, folder=tmp_path / entry.name) for entry in found.entries]
    for entry in entries:
        entry.folder.mkdir()
        example_scores.write(entry.folder, NUM_ROUNDS, columns(entry.settings))
    return replace(found, entries=tuple(entries), varied=("method",))


def claims(collection: Collection, *names: str) -> Claims:
    layout = make_layout(collection, None, names)
    return claims_of(layout, measure_all(layout, "last"))


def by_hand(values: list[np.ndarray]) -> tuple[float, float, float]:
    """Return mean, root mean square of the standard errors, and deviation over draws, of examples by draw."""
    errors = [float(np.std(each, ddof=1) / np.sqrt(len(each))) for each in values]
    means = [float(each.mean()) for each in values]
    return statistics.mean(means), statistics.fmean(e**2 for e in errors) ** 0.5, statistics.stdev(means)


def told(error: Error) -> tuple[float, float | None, float | None]:
    return error.mean, error.std_error, error.std_draws


def test_the_error_is_over_examples_of_the_mean_over_seeds(collection: Collection) -> None:
    found = {(error.first, error.second): error for error in claims(collection, "rouge_l").errors}
    assert list(found) == [("fedit", ""), ("flora", ""), ("fedit", "flora")]

    def of_draws(method: str) -> list[np.ndarray]:
        return [
            np.mean([examples({"method": method, "partition.seed": d, "seed": s})[0] for s in range(2)], axis=0)
            for d in range(3)
        ]

    assert told(found["fedit", ""]) == pytest.approx(by_hand(of_draws("fedit")))
    paired = [one - other for one, other in zip(of_draws("fedit"), of_draws("flora"), strict=True)]
    assert told(found["fedit", "flora"]) == pytest.approx(by_hand(paired))
    assert (found["fedit", "flora"].num_draws, found["fedit", "flora"].num_examples) == (3, NUM_EXAMPLES)
    unpaired, together = found["fedit", ""].std_error, found["fedit", "flora"].std_error
    assert unpaired is not None and together is not None and together < unpaired / 5


def test_the_error_of_a_loss_is_that_of_a_ratio(collection: Collection) -> None:
    """Against the jackknife, which leaves out one example at a time."""
    errors = claims(collection, "loss").errors
    one = next(error for error in errors if (error.first, error.second) == ("fedit", ""))
    jackknifed, losses = [], []
    for draw in range(3):
        found = [examples({"method": "fedit", "partition.seed": draw, "seed": seed}) for seed in range(2)]
        nats, tokens = np.mean([nats for _, nats, _ in found], axis=0), found[0][2]
        without = (nats.sum() - nats) / (tokens.sum() - tokens)
        jackknifed.append((NUM_EXAMPLES - 1) / NUM_EXAMPLES * ((without - without.mean()) ** 2).sum())
        losses.append(nats.sum() / tokens.sum())
    assert one.mean == pytest.approx(statistics.mean(losses))
    assert one.std_error == pytest.approx(statistics.mean(jackknifed) ** 0.5, rel=0.05)


def test_several_models_on_one_set_count_as_their_mean(
    make_collection: Callable[..., Collection], tmp_path: Path
) -> None:
    found = make_collection(CELLS, lambda s, n: {"global/rouge_l": scores(s, n)["global/rouge_l"] + 0.005})
    entries = [replace(entry, folder=tmp_path / entry.name) for entry in found.entries]
    for entry in entries:
        entry.folder.mkdir()
        example_scores.write(entry.folder, NUM_ROUNDS, columns(entry.settings, (0, 1)))
    errors = claims(replace(found, entries=tuple(entries), varied=("method",)), "rouge_l").errors
    assert {error.num_examples for error in errors} == {NUM_EXAMPLES}
    assert errors[0].mean == pytest.approx(
        statistics.mean(
            scores({"method": "fedit", "partition.seed": d, "seed": s}, 3)["global/rouge_l"] + 0.005
            for d in range(3)
            for s in range(2)
        )
    )


def test_a_score_that_is_no_mean_of_examples_has_no_error(collection: Collection) -> None:
    assert claims(collection, "bleu_4").errors == ()
    entries = [
        replace(entry, records=tuple({**record, "global/rouge_l": 0.9} for record in entry.records))
        for entry in collection.entries
    ]
    assert claims(replace(collection, entries=tuple(entries)), "rouge_l").errors == ()


def test_runs_without_tables_have_none(make_collection: Callable[..., Collection]) -> None:
    assert claims(make_collection(CELLS, scores), "rouge_l").errors == ()


def test_section_and_file_hold_both_errors(collection: Collection) -> None:
    found = claims(collection, "rouge_l")
    table = dict(sections_of(found))["Errors over examples"]
    assert [row[1].text for row in table.cells] == ["fedit", "flora"]
    best = next(row for row in table.cells if row[1].text == "flora")
    assert [cell.text for cell in best[-3:]] == ["–"] * 3
    rows = list(csv.DictReader(io.StringIO(examples_csv(found))))
    assert tuple(rows[0]) == EXAMPLES
    assert [(row["first"], row["second"]) for row in rows] == [("fedit", ""), ("flora", ""), ("fedit", "flora")]
    assert float(rows[0]["std_error_draws"]) == pytest.approx(float(rows[0]["std_draws"]) / 3**0.5)
