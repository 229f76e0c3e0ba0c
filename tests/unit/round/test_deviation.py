"""The numbers that a round leaves about effective weights are those of dense matrices, for every LoRA recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from factor_rounds import make_plan
from random_rounds import COHORTS, RECIPE_OPTIONS, Federation, builder, mean_of
from torch import Tensor

from fedlit.algebra.tensors import TensorDict, num_bytes
from fedlit.process import communication
from fedlit.recipes import RECIPES
from fedlit.round.observers import RoundView, factors

EXACT = {
    "ffa_lora",
    "flora",
    "flora, mixed ranks",
    "fedex_lora",
    "fedex_lora, reinitialize",
    "fedex_lora, keep",
    "florist, mixed ranks",
    "fedmomentum",
    "fedsvd",
    "rolora",
    "fed_sb",
    "ravan",
}
"""Rules whose server has the mean of the clients' effective weights."""


@pytest.fixture
def federation(small_llama: Callable[..., Any], tmp_path: Path) -> Callable[..., Federation]:
    build = builder(small_llama, tmp_path)
    return lambda case, analysis=("deviation",): build(case, analysis)


def rms(matrix: Tensor) -> float:
    return float(matrix.square().mean().sqrt())


def spread_of(weights: tuple[float, ...], own: list[TensorDict], name: str) -> float:
    mean = mean_of(weights, own, name)
    return float(sum(w * (one[name] - mean).square().mean() for w, one in zip(weights, own, strict=True)) ** 0.5)


def test_every_lora_recipe_is_here() -> None:
    lora = {name for name, recipe in RECIPES.items() if recipe.adapter.startswith("lora")}
    assert lora - {"centralized", "local_only", "feddpa", "fedalt"} == {name for name, _ in RECIPE_OPTIONS.values()}


@pytest.mark.parametrize("case", RECIPE_OPTIONS)
def test_three_rounds_measured_densely(case: str, federation: Callable[..., Federation]) -> None:
    population = federation(case)
    for client_ids in COHORTS:
        one = population.round(client_ids)
        deviations, updates, drifts, ranks = [], [], [], []
        for layer in one.layers:
            name = layer.name
            missed = one.after[name] - mean_of(one.weights, one.ended, name)
            assert one.record[f"lora/deviation/{name}"] == pytest.approx(rms(missed), rel=1e-8, abs=1e-10)
            deviations.append(rms(missed))
            updates.append(rms(one.after[name] - one.before[name]))
            moved = [rms(end[name] - start[name]) for end, start in zip(one.ended, one.started, strict=True)]
            drifts.append(sum(weight * norm for weight, norm in zip(one.weights, moved, strict=True)))
            ranks.append(int(torch.linalg.matrix_rank(mean_of(one.weights, one.products, name))))
        expected = {"deviation": deviations, "update_norm": updates, "drift_norm": drifts, "rank": ranks}
        for key, values in expected.items():
            mean = sum(values) / len(values)
            assert one.record[f"lora/{key}"] == pytest.approx(mean, rel=1e-8, abs=1e-10), key
        spreads = [spread_of(one.weights, one.own_after, layer.name) for layer in one.layers]
        if case == "fedsa_lora":
            assert one.record["lora/spread"] == pytest.approx(sum(spreads) / len(spreads), rel=1e-8)
            assert one.record[f"lora/spread/{one.layers[-1].name}"] == pytest.approx(spreads[-1], rel=1e-8)
            assert len(one.record) == len(expected) + 1 + 2 * len(one.layers)
        else:
            assert max(spreads) < 1e-15
            assert len(one.record) == len(expected) + len(one.layers)
        assert one.record["lora/drift_norm"] > 1e-3
        if case in EXACT:
            assert one.record["lora/deviation"] < 1e-12
        else:
            assert one.record["lora/deviation"] > 1e-4


def test_the_truncated_residual_leaves_what_it_cuts_off(federation: Callable[..., Federation]) -> None:
    """FlexLoRA and FedEx with residual_rank=1 miss the singular values beyond what they keep."""
    one = federation("flexlora").round((0, 1, 3))
    for layer in one.layers:
        ideal = mean_of(one.weights, one.products, layer.name)
        cut = torch.linalg.svdvals(ideal)[layer.rank :].norm() / ideal.numel() ** 0.5
        assert one.record[f"lora/deviation/{layer.name}"] == pytest.approx(float(cut), rel=1e-9)


@pytest.mark.parametrize("case", ["fedit", "fedsa_lora", "fed_sb", "ffa_lora"])
def test_measuring_changes_nothing(case: str, federation: Callable[..., Federation]) -> None:
    ends = []
    for measures in (True, False):
        population = federation(case, ["deviation"] if measures else [])
        for client_ids in COHORTS:
            record = population.round(client_ids).record
            assert bool(record) is measures
        ends.append(population.server.shared)
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


@pytest.mark.parametrize("case", ["fedit", "fedsa_lora", "fedex_lora, keep"])
def test_a_lost_client_is_in_no_number(case: str, federation: Callable[..., Federation]) -> None:
    """Measured is against the clients that returned, with their weights divided by their sum."""
    with_loss, without = (federation(case).round((0, 1, 3), lost=lost) for lost in ((2,), ()))
    assert with_loss.record.keys() == without.record.keys()
    for key, value in without.record.items():
        assert with_loss.record[key] == pytest.approx(value, rel=1e-9, abs=1e-11), key


@pytest.mark.parametrize("case", ["fedit", "fedsa_lora", "ffa_lora", "flexlora, mixed ranks"])
def test_a_few_layers_at_a_time_are_all_layers(
    case: str, federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clients' factors come back from the file in pieces; how many there are makes no difference."""
    records, calls = [], []
    monkeypatch.setattr(communication, "sum_in_place", lambda buffer: calls.append(buffer.numel()))
    for share in (1, 0.5, 0):
        population = federation(case)
        (observer,) = population.observers
        observer.begin(make_plan((), ()), population.server)
        stack = 3 * num_bytes(observer._like(population.host.layers))  # type: ignore[attr-defined]
        monkeypatch.setattr(factors, "STACK_BYTES", int(share * stack))
        records.append(population.round((0, 1, 3)).record)
        calls.append(0)
    assert records[0] == records[1] == records[2]
    whole, some, single = (len(part) for part in _split(calls))
    assert whole < some < single
    assert single == whole - 1 + len(population.host.layers)


def _split(calls: list[int]) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for call in calls:
        if call:
            parts[-1].append(call)
        else:
            parts.append([])
    return parts[:-1]


@pytest.mark.parametrize("stack_bytes", [2**24, 1])
def test_a_process_that_need_not_compute_gets_nothing(
    stack_bytes: int, federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But takes part in every collective, in the same order, also if it trained nobody."""
    monkeypatch.setattr(factors, "STACK_BYTES", stack_bytes)
    population = federation("fedit")
    plan, cohort, work = population.train((0, 1), population.trainer())
    cohort.close((0, 1))
    view = RoundView(plan=plan, before=population.server, after=population.server, cohort=cohort, notes={})
    calls: list[tuple[int, ...]] = []
    monkeypatch.setattr(communication, "sum_in_place", lambda buffer: calls.append(tuple(buffer.shape)))
    assert population.record(view, work)
    of_first, calls[:] = list(calls), []
    monkeypatch.setattr(communication, "process_index", lambda: 1)
    assert population.record(view, work) == {}
    assert calls == of_first
    calls.clear()
    (observer,) = population.observers
    observer.begin(plan, population.server)
    assert population.record(view, work) == {}
    assert calls == of_first


def test_an_empty_round_is_not_measured(federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch) -> None:
    population = federation("fedit")
    plan, cohort, work = population.train((), population.trainer())
    cohort.close(())
    monkeypatch.setattr(communication, "sum_in_place", lambda _: pytest.fail("there is nothing to sum"))
    view = RoundView(plan=plan, before=population.server, after=population.server, cohort=cohort, notes={})
    assert population.record(view, work) == {}


def test_the_clients_factors_wait_in_a_file_without_a_name(
    federation: Callable[..., Federation], tmp_path: Path
) -> None:
    """In the run's folder, where nothing is left."""
    population = federation("fedsa_lora")
    (observer,) = population.observers
    assert observer.folder == tmp_path  # type: ignore[attr-defined]
    population.round((0, 1))
    assert list(tmp_path.iterdir()) == []
