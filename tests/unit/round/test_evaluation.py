"""Batches dealt to processes add up to the whole; a client's scores are its own model's; subsets and spreads."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.fabric import Fabric
from torch import nn
from torchmetrics import Metric

from fedlit.data.collation import Example
from fedlit.metrics.exact import FixedPointMean
from fedlit.process import communication
from fedlit.round.client_models import ClientModels
from fedlit.round.evaluation import Evaluator
from fedlit.round.over_clients import over_clients
from fedlit.round.subsets import fixed_subset, sampled_clients
from fedlit.tasks import Sample
from fedlit.tasks.causal_lm.task import CausalLM


class Counting:
    """A task whose loss is the model's one weight times the length of the prompt, and which looks around."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def metrics(self) -> dict[str, Metric]:
        return {"loss": FixedPointMean()}

    def evaluate(
        self, model: nn.Module, examples: Sequence[Example], metrics: Mapping[str, Metric], device: torch.device
    ) -> list[Sample]:
        self.seen.append(
            {"training": model.training, "grad": torch.is_grad_enabled(), "dtype": model(torch.ones(1, 1)).dtype}
        )
        weight = float(model.weight)  # type: ignore[arg-type]
        sums = torch.tensor([weight * len(example.prompt) for example in examples])
        metrics["loss"].update(sums, torch.ones(len(examples), dtype=torch.int64))
        return [Sample(prompt=example.prompt, reference="", prediction="") for example in examples]


def example(length: int) -> Example:
    return Example(token_ids=(1, 2), num_prompt_tokens=1, prompt="x" * length, response="", truncated=False)


@pytest.fixture
def model() -> nn.Module:
    linear = nn.Linear(1, 1, bias=False)
    nn.init.constant_(linear.weight, 2.0)
    return linear


BATCHES = [[example(1), example(2)], [example(3), example(4)], [example(5)]]


def evaluator(model: nn.Module, task: Any, precision: Any = "32-true") -> Evaluator:
    return Evaluator(
        fabric=Fabric(accelerator="cpu", devices=1, precision=precision),
        model=model,
        task=task,
        batches=BATCHES,
        own_batches={0: BATCHES[:1], 2: BATCHES[1:]},
    )


def test_the_scores_are_of_all_batches(model: nn.Module) -> None:
    scores, samples = evaluator(model, Counting()).together()
    assert scores == {"loss": 2.0 * 3}
    assert [len(sample.prompt) for sample in samples] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("num_processes", [1, 2, 3, 4])
def test_every_batch_is_scored_by_one_process(
    num_processes: int, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(communication, "num_processes", lambda: num_processes)
    scored = []
    for index in range(num_processes):
        monkeypatch.setattr(communication, "process_index", lambda index=index: index)
        task = Counting()
        scored += [len(sample.prompt) for sample in evaluator(model, task).together()[1]]
        assert len(task.seen) == len(BATCHES[index::num_processes])
    assert sorted(scored) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_the_model_is_evaluated_without_gradients_in_the_run_s_precision(
    precision: str, dtype: torch.dtype, model: nn.Module
) -> None:
    task = Counting()
    evaluator(model.train(), task, precision).together()
    assert task.seen == [{"training": False, "grad": False, "dtype": dtype}] * 3
    assert model.training


def models(mine: Collection[int], load: Callable[[int], None]) -> ClientModels:
    return ClientModels(population=range(4), mine=mine, load=load)


def test_each_client_is_scored_with_its_own_tensors(model: nn.Module) -> None:
    loaded: list[int] = []

    def load(client_id: int) -> None:
        loaded.append(client_id)
        nn.init.constant_(model.weight, float(client_id))  # type: ignore[arg-type]

    scores = evaluator(model, Counting()).of_each_client(range(4), models([3, 1, 2, 0], load))
    assert loaded == [0, 1, 2, 3]
    assert scores == {client: {"loss": 3.0 * client} for client in range(4)}


def test_each_client_is_scored_on_its_own_rows(model: nn.Module) -> None:
    """Clients without a test part are left out, and a client's own model meets its own rows."""
    on_own, samples = evaluator(model, Counting()).together_on_own()
    assert on_own == {0: {"loss": 2.0 * 1.5}, 2: {"loss": 2.0 * 4}}
    assert [len(sample.prompt) for sample in samples] == [1, 2, 3, 4, 5]

    def load(client_id: int) -> None:
        nn.init.constant_(model.weight, float(client_id))  # type: ignore[arg-type]

    whole = evaluator(model, Counting())
    scores = whole.of_each_client(whole.own_batches, models(range(4), load), own=True)
    assert scores == {0: {"loss": 0.0}, 2: {"loss": 8.0}}


@pytest.mark.parametrize("num_processes", [2, 3])
def test_the_processes_share_every_clients_rows(
    num_processes: int, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(communication, "num_processes", lambda: num_processes)
    scored = []
    for index in range(num_processes):
        monkeypatch.setattr(communication, "process_index", lambda index=index: index)
        scored += [len(sample.prompt) for sample in evaluator(model, Counting()).together_on_own()[1]]
    assert sorted(scored) == [1, 2, 3, 4, 5]


def test_counts_are_of_all_sets(model: nn.Module) -> None:
    whole = evaluator(model, Counting())
    assert (whole.num_examples, whole.num_truncated) == (10, 0)
    cut = Example(token_ids=(1,), num_prompt_tokens=1, prompt="", response="", truncated=True)
    assert dataclasses.replace(whole, batches=[[cut, example(1)]]).num_truncated == 1


def test_a_client_held_elsewhere_adds_nothing_here(model: nn.Module) -> None:
    """Its metrics are empty on this process, where the collective would bring in the other's."""
    scores = evaluator(model, Counting()).of_each_client(range(3), models({1}, lambda _client_id: None))
    assert scores[1] == {"loss": 6.0}
    assert np.isnan([scores[0]["loss"], scores[2]["loss"]]).all()


def test_all_own_clients_run_before_the_first_collective(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    compute = FixedPointMean.compute
    monkeypatch.setattr(FixedPointMean, "compute", lambda metric: events.append("compute") or compute(metric))
    mine = models([0, 1, 2], lambda _client_id: events.append("load"))
    evaluator(model, Counting()).of_each_client(range(3), mine)
    assert events == ["load"] * 3 + ["compute"] * 3


def test_a_real_task_scores_the_same_for_any_deal(
    small_llama: Callable[..., nn.Module],
    make_task: Callable[..., CausalLM],
    examples: list[Example],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The states of two processes' metrics add up to those of one."""
    task = make_task(max_new_tokens=2)
    batches = task.evaluation_batches(examples, 5)
    whole = Evaluator(fabric=Fabric(accelerator="cpu", devices=1), model=small_llama(), task=task, batches=batches)
    alone = whole._run(batches)[0]
    parts = [whole._run(batches[index::2])[0] for index in range(2)]
    for name, metric in alone.items():
        for state in metric._defaults:
            total = sum(getattr(part[name], state) for part in parts)
            assert torch.equal(total, getattr(metric, state)), (name, state)


@given(st.integers(0, 60), st.none() | st.integers(1, 70), st.integers(0, 2**40))
def test_a_subset_is_fixed_and_in_order(num_examples: int, max_examples: int | None, seed: int) -> None:
    examples = [example(length) for length in range(num_examples)]
    chosen = [len(row.prompt) for row in fixed_subset(examples, max_examples, seed)]
    assert chosen == [len(row.prompt) for row in fixed_subset(examples, max_examples, seed)]
    assert len(chosen) == min(num_examples, max_examples or num_examples)
    assert chosen == sorted(set(chosen))


def test_a_subset_is_random() -> None:
    examples = [example(length) for length in range(40)]
    subsets = [[len(row.prompt) for row in fixed_subset(examples, 5, seed)] for seed in range(30)]
    assert len({tuple(subset) for subset in subsets}) == 30
    assert max(max(subset) for subset in subsets) > 30


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0, 1)), min_size=1, max_size=9))
def test_mean_spread_and_worst_are_numpy_s(values: list[tuple[float, float]]) -> None:
    scores = [{"loss": loss, "rouge_l": rouge, "confusion_matrix": [[1]]} for loss, rouge in values]
    assert list(over_clients(scores)) == ["loss", "loss_std", "rouge_l", "rouge_l_std"]
    result = over_clients(scores, lowest_is_worst=lambda name: name == "rouge_l")
    assert [result["loss_worst"], result["rouge_l_worst"]] == [max(values)[0], min(rouge for _, rouge in values)]
    expected = np.array(values)
    assert [result["loss"], result["rouge_l"]] == pytest.approx(expected.mean(0), abs=1e-9)
    assert [result["loss_std"], result["rouge_l_std"]] == pytest.approx(expected.std(0), abs=1e-9)


def test_a_score_that_some_clients_lack_is_the_mean_of_the_others() -> None:
    assert over_clients([{"accuracy/boolq": 1.0}, {}, {"accuracy/boolq": 0.5}])["accuracy/boolq"] == 0.75


def test_a_sample_of_clients_is_fixed_and_in_order() -> None:
    chosen = sampled_clients(range(1000), 5, 7)
    assert chosen == sampled_clients(reversed(range(1000)), 5, 7) == (*sorted(chosen),)
    assert len(set(chosen)) == 5 and chosen != sampled_clients(range(1000), 5, 8)
    assert sampled_clients([4, 2], 5, 7) == sampled_clients([4, 2], None, 7) == (2, 4)


@pytest.mark.parametrize(("evaluated", "wanted"), [(None, [0, 1, 2, 3]), ((1, 3), [1, 3]), ((9,), [0, 1, 2, 3])])
def test_only_the_sample_is_evaluated(model: nn.Module, evaluated: tuple[int, ...] | None, wanted: list[int]) -> None:
    loaded: list[int] = []

    def load(client_id: int) -> None:
        loaded.append(client_id)
        nn.init.constant_(model.weight, float(client_id))  # type: ignore[arg-type]

    some = dataclasses.replace(evaluator(model, Counting()), evaluated=evaluated)
    record, _ = some.score("global", ClientModels(population=range(4), mine=range(4), load=load))
    assert loaded == wanted
    assert {key for key in record if key.startswith("client/")} == {f"client/{client}/loss" for client in wanted}
    assert record["global/loss"] == pytest.approx(3.0 * sum(wanted) / len(wanted))
    untrained, _ = some.score("global", ClientModels(population=range(4), mine=None, load=load))
    assert {key for key in untrained if key.startswith("client/")} == {f"client/{client}/loss" for client in wanted}
