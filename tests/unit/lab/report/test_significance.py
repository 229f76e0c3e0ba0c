"""The test is Wilcoxon's over the right pairs, and the correction is Holm's."""

import itertools
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedlit.lab.analysis.collection import Collection
from fedlit.lab.report.cells import measure_all
from fedlit.lab.report.layout import make_layout
from fedlit.lab.report.published import load_published
from fedlit.lab.report.significance import Comparison, compare_all, holm, signed_rank

CELLS = [
    {"method": method, "data": data, "num_clients": n, "seed": seed}
    for method in ("fedit", "scl")
    for data in ("a", "b", "c", "d")
    for n in (3, 4)
    for seed in (0, 1)
]


def value(settings: Any) -> float:
    rng = np.random.default_rng(zlib.crc32(repr(sorted((k, str(v)) for k, v in settings.items())).encode()))
    return float(rng.normal(0.3, 0.1))


def compare(collection: Collection, scores: tuple[str, ...] = ("rouge_l",)) -> list[Comparison]:
    layout = make_layout(collection, load_published(collection.name), scores)
    return compare_all(layout, measure_all(layout, "last"))


def exact_p(differences: list[float]) -> float:
    """Return the two-sided p-value by counting all ways to sign the ranks."""
    ranks = stats.rankdata(np.abs(differences))
    observed = sum(rank for rank, d in zip(ranks, differences, strict=True) if d > 0)
    sums = [sum(itertools.compress(ranks, signs)) for signs in itertools.product([0, 1], repeat=len(ranks))]
    extreme = min(sum(s <= observed for s in sums), sum(s >= observed for s in sums))
    return min(1.0, 2 * extreme / len(sums))


def test_pairs_are_cells_that_differ_in_the_method_with_the_mean_over_seeds(
    make_collection: Callable[..., Collection],
) -> None:
    collection = make_collection(CELLS, lambda s, number: {"global/rouge_l": number * value(s)})
    (result,) = compare(collection)
    by_cell: dict[tuple[str, str, int], list[float]] = {}
    for s in CELLS:
        by_cell.setdefault((s["method"], s["data"], s["num_clients"]), []).append(3 * value(s))
    means = {key: sum(found) / 2 for key, found in by_cell.items()}
    differences = [mean - means["scl", data, n] for (method, data, n), mean in means.items() if method == "fedit"]
    assert (result.first, result.second, result.num_pairs, result.num_nonzero) == ("fedit", "scl", 8, 8)
    assert result.median == pytest.approx(np.median(differences))
    assert result.p == pytest.approx(exact_p(differences))
    assert result.p == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert result.p_holm == result.p


def test_zeros_are_left_out_and_five_pairs_are_too_few(make_collection: Callable[..., Collection]) -> None:
    def scorer(settings: Any, number: int) -> dict[str, float]:
        better = settings["method"] == "scl" and (settings["data"], settings["num_clients"]) not in {("a", 3), ("b", 4)}
        return {"global/rouge_l": 0.3 + 0.1 * better}

    (result,) = compare(make_collection(CELLS, scorer))
    assert (result.num_pairs, result.num_nonzero, result.better) == (8, 6, "scl")
    assert result.p == pytest.approx(2 / 2**6)
    (result,) = compare(make_collection([s for s in CELLS if s["data"] != "d"], scorer))
    assert (result.num_pairs, result.num_nonzero, result.p, result.p_holm) == (6, 4, None, None)


def test_only_seeds_that_both_have_count_and_only_runs_that_are_done(
    make_collection: Callable[..., Collection],
) -> None:
    """Seed 1 of scl is missing or unfinished, and is far from seed 0."""

    def scorer(settings: Any, number: int) -> dict[str, float] | None:
        if settings["method"] == "scl" and settings["data"] == "a" and settings["seed"] == 1:
            return None
        return {
            "global/rouge_l": 0.3 + settings["seed"] + (settings["method"] == "scl") * 0.01 * settings["num_clients"]
        }

    def state(settings: Any) -> str:
        return "killed" if settings["method"] == "scl" and settings["seed"] == 1 else "done"

    (result,) = compare(make_collection(CELLS, scorer, state=state))
    assert result.num_pairs == 8
    assert result.median == pytest.approx(-0.035)


def test_lower_is_better_for_a_loss(make_collection: Callable[..., Collection]) -> None:
    collection = make_collection(CELLS, lambda s, number: {"global/loss": 2.0 + (s["method"] == "scl")})
    (result,) = compare(collection, ("loss",))
    assert result.better == "fedit"


def test_options_that_belong_to_a_method_are_no_conditions(make_sweep: Callable[..., Collection]) -> None:
    """SCL's d differs between models, and the others have a rank instead."""
    collection = make_sweep("scl_table2", lambda s, number: {"global/rouge_l": value(s), "global/bleu_4": 0.1})
    results = compare(collection, ())
    assert [(c.first, c.second) for c in results if c.score == "ROUGE-L"] == [
        ("SCL", "FedSA-LoRA"),
        ("SCL", "FFA-LoRA"),
        ("FedSA-LoRA", "FFA-LoRA"),
    ]
    assert {c.num_pairs for c in results} == {8}


def test_tasks_are_pairs_of_one_test(make_sweep: Callable[..., Collection]) -> None:
    collection = make_sweep(
        "fedex_glue",
        lambda s, number: dict.fromkeys(("global/mcc", "global/accuracy", "global/pearson"), value(s)),
        ["model=roberta-base", "local.epochs=3", "method=[fedit, fedex_lora]", "seed=0"],
    )
    (result,) = compare(collection, ())
    assert (result.score, result.num_pairs) == ("all columns", 12)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 1.0, 2.0, 2.0, 3.0, -1.0], 0.125),  # 0.09375 by scipy before 1.15, and by method="exact"
        ([1.0, 2.0, 3.0, 4.0, 5.0, -6.0], 0.4375),
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 0.03125),
        ([1.0, 1.0, -1.0, -1.0, 2.0, -2.0], 1.0),
    ],
)
def test_with_ties_the_p_value_is_that_of_all_signs(differences: list[float], p: float) -> None:
    assert float(signed_rank(differences).pvalue) == pytest.approx(p) == exact_p(differences)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0]), min_size=6, max_size=11))
def test_any_ties_among_few_pairs_are_counted_out(differences: list[float]) -> None:
    assert float(signed_rank(differences).pvalue) == pytest.approx(exact_p(differences))


def test_differences_that_are_equal_but_for_rounding_are_ties_and_zeros(
    make_collection: Callable[..., Collection],
) -> None:
    """Of eight pairs 0.1 + 0.2 - 0.3 twice, and 0.1 in four ways that differ in their last bit."""
    base = {"a": (0.2, 0.3), "b": (0.7, 0.8), "c": (0.1, 0.2), "d": (0.3, 0.3)}

    def scorer(settings: Any, number: int) -> dict[str, float]:
        low, high = base[settings["data"]]
        if settings["data"] == "d":
            return {"global/rouge_l": 0.1 + 0.2 if settings["method"] == "scl" else 0.3}
        sign = settings["data"] == "c" and settings["num_clients"] == 4
        return {"global/rouge_l": high if (settings["method"] == "scl") != sign else low}

    (result,) = compare(make_collection(CELLS, scorer))
    assert (result.num_pairs, result.num_nonzero) == (8, 6)
    assert result.p == pytest.approx(exact_p([-0.1] * 5 + [0.1]))


def comparison(p: float | None) -> Comparison:
    return Comparison(
        score="s", first="a", second="b", num_pairs=9, num_nonzero=9, median=0.1, statistic=1.0, p=p, p_holm=None,
        lower_is_better=False,
    )  # fmt: skip


def test_holm_by_hand() -> None:
    corrected = [c.p_holm for c in holm([comparison(p) for p in (0.01, 0.04, None, 0.03, 0.005)])]
    assert corrected == pytest.approx([0.03, 0.06, None, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_its_steps_reject(ps: list[float]) -> None:
    """At every level: go up the sorted p-values as long as p <= level / (those left)."""
    corrected = [c.p_holm for c in holm([comparison(p) for p in ps])]
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
            if (len(ps) - rank) * ps[i] > level:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(corrected) if p is not None and p <= level and math.isfinite(p)} == rejected
