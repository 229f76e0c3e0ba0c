"""The page has the statistics over draws: charts from the same numbers as the table, and none with one draw."""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_runs import collection, partition

from fedlit.lab.analysis.collection import Collection
from fedlit.lab.dashboard.claims import drawn_claims
from fedlit.lab.dashboard.data import page_data
from fedlit.lab.dashboard.page import render
from fedlit.lab.dashboard.shards import label_distributions
from fedlit.lab.report.over_draws.claims import build_claims
from fedlit.lab.report.over_draws.sections import sections_of
from fedlit.lab.report.table import build_table

HOSTILE = "<img src=x onerror=alert(1)></script>"


def drawn_collection(num_draws: int, methods: tuple[str, ...] = ("fedit", "ffa_lora", "flora")) -> Collection:
    """Return runs whose seeds stand for draws of two seeds each."""
    found = collection(Path("runs/demo"), methods=methods, num_seeds=2 * num_draws)
    entries = []
    for entry in found.entries:
        draw, seed = divmod(entry.settings["seed"], 2)
        settings: Mapping[str, Any] = {**entry.settings, "partition.seed": draw, "seed": seed}
        loss = 2 + np.random.default_rng([draw, seed, methods.index(settings["method"])]).normal(0, 0.1)
        records = tuple({**record, "global/loss": float(loss)} for record in entry.records)
        dealt = partition("medquad", 4, draw)
        entries.append(replace(entry, settings=settings, records=records, partition=dealt))
    return replace(found, entries=tuple(entries))


def page_of(found: Collection) -> str:
    claims = build_claims(found)
    page = page_data(found, claims)
    return render(page, build_table(found), sections_of(claims), made_at=datetime(2026, 1, 2, tzinfo=UTC))


def test_charts_hold_what_the_table_says() -> None:
    claims = build_claims(drawn_collection(6))
    drawn = drawn_claims(claims)
    assert [forest.title for forest in drawn.forests] == [scores.score for scores in claims.scores]
    for forest, scores in zip(drawn.forests, claims.scores, strict=True):
        assert (forest.best, forest.lower_is_better) == (scores.best(), scores.lower_is_better)
        assert set(forest.names) == set(scores.runs) - {forest.best}
        means = [scores.mean(name) - scores.mean(forest.best) for name in forest.names]
        np.testing.assert_allclose(forest.means, means, rtol=1e-4, atol=1e-9)
    for bar, shared in zip(drawn.bars, claims.shares, strict=True):
        assert bar.sources == [share.source for share in shared.found.shares]
        assert abs(sum(bar.shares) - 1) < 1e-5


def test_one_draw_has_no_charts_and_no_section() -> None:
    found = collection(Path("runs/demo"), num_seeds=1)
    assert drawn_claims(build_claims(found)) == drawn_claims(None)
    assert 'id="statistics"' not in page_of(found)


def test_a_page_of_draws_speaks_of_runs() -> None:
    found = drawn_collection(6)
    page = page_data(found)
    assert page.repeat == "run"
    assert ("repeated", "6 draws x 2 seeds") in page.facts
    assert len(page.groups) == 3
    assert page_data(collection(Path("runs/demo"))).repeat == "seed"
    html = page_of(found)
    assert 'id="statistics"' in html
    assert html.count("data-forest></div>") == len(build_claims(found).scores)
    assert "Of each run <select" in html


def test_a_partition_is_told_by_its_draw() -> None:
    (data,) = label_distributions(drawn_collection(2).entries)
    assert [(shards.draws, shards.seeds) for shards in data.shards] == [([0], [0, 1]), ([1], [0, 1])]
    (data,) = label_distributions(collection(Path("runs/demo")).entries)
    assert [shards.draws for shards in data.shards] == [[], []]


def test_what_methods_are_called_makes_no_element() -> None:
    html = page_of(drawn_collection(2, methods=("fedit", HOSTILE)))
    assert HOSTILE not in html
    assert not re.search(r"<img\b", html.partition('<script type="application/json"')[0])
